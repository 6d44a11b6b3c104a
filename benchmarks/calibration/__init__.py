"""Public measurements of serving engines, and how far the engine model is from them."""
