"""Small local stand-ins for services of a lab's stack that are not engines: real HTTP servers, loopback only."""
