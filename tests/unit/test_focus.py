"""FOCUS 1.2: its rules, the view that speaks it, and the validator, which has to find each mistake planted here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from lab_pipelines.focus.rules import Rules, load_rules
from lab_pipelines.focus.validate import Violation, find_violations
from resources.duck import connect
from resources.warehouse import Warehouse
from tests.support.rows.common import Row
from tests.support.rows.money import billed, cost_row
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

LATER = cost_row()["recorded_at"] + timedelta(days=1)
MEASURED: Row = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0}


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What the view makes of a run, an estimate and its bill."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("focus"))
    tables = lab_run(**MEASURED)
    estimates = tables["cost_records"]
    tables["cost_records"] = estimates + [billed(row, row["ListCost"] * 2, recorded_at=LATER) for row in estimates]
    publish_run(warehouse, tables)
    with warehouse.database("focus_cost_and_usage") as connection:
        return connection.sql("FROM focus_cost_and_usage ORDER BY x_state, x_part, x_stage").to_arrow_table()


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as connection:
        yield connection


# The rules


def test_the_rules_know_every_column_of_the_version(rules: Rules) -> None:
    assert rules.version == "1.2"
    assert len(rules.columns) == 57
    assert list(rules.columns) == sorted(rules.columns)
    assert len(rules.mandatory()) == 21
    named = {name for relation in rules.relations for name in relation.columns}
    named |= {name for pair in rules.determines for name in pair}
    named |= {name for product in rules.products for name in (product.price, product.quantity, product.cost)}
    assert named <= set(rules.columns)


def test_every_condition_is_one_that_duckdb_can_answer(rules: Rules, database: duckdb.DuckDBPyConnection) -> None:
    kinds = {"string": "VARCHAR", "decimal": "DECIMAL(38, 15)", "datetime": "TIMESTAMPTZ"}
    columns = ", ".join(f'"{name}" {kinds[column.type]}' for name, column in rules.columns.items())
    database.execute(f"CREATE TABLE everything ({columns})")
    assert find_violations(database, "everything", rules) == []


# The view


def view_of(warehouse: Warehouse) -> list[Row]:
    return warehouse.query("FROM focus_cost_and_usage ORDER BY x_state, x_part, x_stage")


def test_the_view_keeps_to_every_rule(good: pa.Table, rules: Rules, database: duckdb.DuckDBPyConnection) -> None:
    assert good.num_rows == 10
    database.register("good", good)
    assert find_violations(database, "good", rules) == []


def test_the_money_of_the_view_is_that_of_the_cost_records_to_the_last_digit(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, lab_run(users=(1, 2, 3, 5, 7, 11)))
    [sums] = warehouse.query(
        "SELECT (SELECT sum(usd) FROM cost_current) AS usd, sum(BilledCost) AS billed, "
        "sum(EffectiveCost) AS effective, sum(ContractedCost) AS contracted, "
        "sum(PricingCurrencyEffectiveCost) AS pricing FROM focus_cost_and_usage"
    )
    assert len(set(sums.values())) == 1
    for row in view_of(warehouse):
        assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
        assert abs(row["ListCost"] - row["BilledCost"]) < Decimal("1e-8")


def test_a_bill_in_dollars_stands_beside_its_estimate(good: pa.Table) -> None:
    rows = good.to_pylist()
    bills, estimates = ([row for row in rows if row["x_state"] == state] for state in ("billed", "estimated"))
    for bill, estimate in zip(bills, estimates, strict=True):
        assert bill["ChargeDescription"].startswith("Billed: ")
        assert estimate["ChargeDescription"].startswith("Estimated at list price: ")
        assert bill["BilledCost"] == bill["EffectiveCost"] == bill["ContractedCost"] == estimate["BilledCost"] * 2
        assert bill["ListCost"] == estimate["ListCost"]
        assert bill["x_delta_usd"] == estimate["BilledCost"]


def test_a_bill_in_euros_has_list_prices_at_the_bill_s_own_rate(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    estimate = cost_row(**MEASURED, ListUnitPrice=Decimal("0.5"), PricingQuantity=Decimal(2), ListCost=Decimal(1))
    in_euros = {"BillingCurrency": "EUR", "BilledCost": Decimal("0.9"), "ListUnitPrice": None, "ListCost": None}
    bill = billed(estimate, Decimal("1.2"), recorded_at=LATER, **in_euros)
    publish_run(warehouse, {"cost_records": [estimate, bill]})
    [row, _] = view_of(warehouse)
    assert (row["BillingCurrency"], row["BilledCost"]) == ("EUR", Decimal("0.9"))
    assert (row["PricingCurrency"], row["PricingCurrencyListUnitPrice"]) == ("USD", Decimal("0.5"))
    assert row["PricingCurrencyEffectiveCost"] == Decimal("1.2")
    assert row["ListUnitPrice"] == Decimal("0.375"), "0.9 EUR were 1.2 USD"
    assert row["ListCost"] == Decimal("0.75")


def test_what_has_no_price_is_no_row(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    unpriced = cost_row(session_id="unpriced", **dict.fromkeys(("ListUnitPrice", "ListCost", "RegionId", "SkuId")))
    publish_run(warehouse, {"cost_records": [cost_row(), unpriced]})
    assert [row["x_session_id"] for row in view_of(warehouse)] == ["session-1"]


def test_periods_are_whole_seconds_around_the_record_s(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    end_of_month = datetime(2026, 3, 31, 23, 59, 59, 400_000, tzinfo=UTC)
    whole = end_of_month.replace(microsecond=0)
    records = [
        cost_row(session_id="a", ChargePeriodStart=end_of_month, ChargePeriodEnd=end_of_month + timedelta(seconds=1)),
        cost_row(session_id="b", ChargePeriodStart=whole, ChargePeriodEnd=whole),
        cost_row(session_id="c", ChargePeriodStart=whole, ChargePeriodEnd=whole + timedelta(seconds=5)),
    ]
    publish_run(warehouse, {"cost_records": records})
    found = {
        row["x_session_id"]: (row["ChargePeriodEnd"] - row["ChargePeriodStart"]).total_seconds()
        for row in view_of(warehouse)
    }
    assert found == {"a": 2, "b": 1, "c": 5}
    for row in view_of(warehouse):
        assert row["ChargePeriodStart"] == whole
        assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == (
            datetime(2026, 3, 1, tzinfo=UTC),
            datetime(2026, 4, 1, tzinfo=UTC),
        )


def test_a_cost_may_be_large(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    price, hours = Decimal("98.32"), Decimal("800000.5")
    row = cost_row(ListUnitPrice=price, PricingQuantity=hours, ListCost=price * hours)
    publish_run(warehouse, {"cost_records": [row]})
    assert [row["ListCost"] for row in view_of(warehouse)] == [price * hours]


def test_spot_is_dynamic_and_modelled_says_so(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, {"cost_records": [cost_row(x_priority="spot", x_pool="t4")]})
    [row] = view_of(warehouse)
    assert (row["PricingCategory"], row["x_provenance"]) == ("Dynamic", "modelled")
    assert row["ChargeDescription"].startswith("Estimated at list price, modelled: L06 baseline, serve time")
    assert row["SkuPriceId"] == "Standard_NC4as_T4_v3/eastus/spot"
    assert (row["ResourceId"], row["ResourceName"]) == ("local/l06/session-1/t4", "t4")


# Planted mistakes

UTC_TIME = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

PLANTED: list[tuple[str, dict[str, Any], str, str]] = [
    ("a cost that is null", {"BilledCost": None}, "BilledCost", "must not be null"),
    ("no account", {"BillingAccountId": None}, "BillingAccountId", "must not be null"),
    ("an account without a type", {"BillingAccountType": None}, "BillingAccountType", "must not be null when"),
    ("small letters", {"BillingCurrency": "usd"}, "BillingCurrency", "ISO 4217"),
    ("no such money", {"BillingCurrency": "XYZ"}, "BillingCurrency", "ISO 4217"),
    ("a word for null", {"RegionName": "Not Applicable"}, "RegionName", "a word for it"),
    ("an empty text", {"RegionName": ""}, "RegionName", "rather than empty"),
    ("spaces alone", {"ServiceName": "  "}, "ServiceName", "rather than empty"),
    ("a region's name without a region", {"RegionId": None}, "RegionName", "must be null when RegionId IS NULL"),
    ("a region without a name", {"RegionName": None}, "RegionName", "must not be null when RegionId"),
    ("an unknown category", {"ChargeCategory": "Fee"}, "ChargeCategory", "must be one of Usage"),
    ("an unknown class", {"ChargeClass": "Normal"}, "ChargeClass", "must be one of Correction"),
    ("an unknown frequency", {"ChargeFrequency": "Hourly"}, "ChargeFrequency", "must be one of One-Time"),
    ("a purchase that is usage-based", {"ChargeCategory": "Purchase"}, "ChargeFrequency", "a purchase is not"),
    (
        "a period that ends before it starts",
        {"ChargePeriodEnd": UTC_TIME - timedelta(days=1)},
        "ChargePeriodStart",
        "ends after",
    ),
    (
        "an empty billing period",
        {"BillingPeriodEnd": datetime(2026, 3, 1, tzinfo=UTC)},
        "BillingPeriodStart",
        "ends after",
    ),
    (
        "a charge of another month",
        {"BillingPeriodStart": datetime(2026, 3, 20, tzinfo=UTC)},
        "ChargePeriodStart",
        "within",
    ),
    (
        "half a second",
        {"ChargePeriodStart": UTC_TIME + timedelta(milliseconds=500)},
        "ChargePeriodStart",
        "whole second",
    ),
    ("a list price below zero", {"ListUnitPrice": Decimal(-1)}, "ListUnitPrice", "must be 0 or more"),
    ("no list price", {"ListUnitPrice": None}, "ListUnitPrice", "must not be null when ChargeCategory"),
    ("a list cost that is another", {"ListCost": Decimal("0.0000001")}, "ListCost", "to the last digit"),
    ("a quantity that is another", {"PricingQuantity": Decimal("7")}, "ListCost", "to the last digit"),
    ("no quantity", {"PricingQuantity": None}, "PricingQuantity", "must not be null when ChargeCategory"),
    ("a unit without a quantity", {"PricingQuantity": None}, "PricingUnit", "must be null when PricingQuantity"),
    ("a unit in small letters", {"PricingUnit": "node-hour"}, "PricingUnit", "must be a unit"),
    ("a unit of no known time", {"PricingUnit": "Node-Fortnights"}, "PricingUnit", "must be a unit"),
    ("no consumed unit", {"ConsumedUnit": None}, "ConsumedUnit", "must not be null when ConsumedQuantity"),
    (
        "a contracted cost without its price",
        {"ContractedCost": Decimal(1)},
        "ContractedCost",
        "must be BilledCost where",
    ),
    ("a third party's charge", {"InvoiceIssuerName": "A reseller"}, "BilledCost", "third party"),
    ("no SKU", {"SkuId": None}, "SkuId", "must not be null when ChargeCategory"),
    ("a meter without a SKU", {"SkuId": None}, "SkuMeter", "must be null when SkuId"),
    ("a name that is the identifier", {"ResourceId": "r", "ResourceName": "r"}, "ResourceId", "says more"),
    ("a resource without a type", {"ResourceType": None}, "ResourceType", "must not be null when ResourceId"),
    (
        "a subcategory of another category",
        {"ServiceSubcategory": "Caching"},
        "ServiceSubcategory",
        "where ServiceCategory is Compute",
    ),
    (
        "a service of two categories",
        {"ServiceCategory": "Storage", "ServiceSubcategory": "File Storage"},
        "ServiceName",
        "one ServiceCategory",
    ),
    ("a price of two SKUs", {"SkuId": "Standard_NC6s_v3"}, "SkuPriceId", "one SkuId"),
    ("tags that are no JSON", {"Tags": "lab=l06"}, "Tags", "must be a JSON object"),
    ("tags that are a list", {"Tags": "[1]"}, "Tags", "must be a JSON object"),
    ("tags within tags", {"Tags": '{"lab": {"id": "l06"}}'}, "Tags", "must be a JSON object"),
    ("a key twice", {"Tags": '{"lab": "l06", "lab": "l07"}'}, "Tags", "must be a JSON object"),
    (
        "a commitment's status alone",
        {"CommitmentDiscountStatus": "Used"},
        "CommitmentDiscountStatus",
        "must be null when",
    ),
    (
        "a commitment without a status",
        {"CommitmentDiscountId": "c"},
        "CommitmentDiscountStatus",
        "must not be null when",
    ),
    ("an unknown pricing category", {"PricingCategory": "Cheap"}, "PricingCategory", "must be one of Standard"),
    ("no pricing currency", {"PricingCurrency": None}, "PricingCurrency", "must not be null"),
]


@pytest.mark.parametrize(("changes", "column", "rule"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED])
def test_a_planted_mistake_is_found_at_its_row(
    good: pa.Table, rules: Rules, database: duckdb.DuckDBPyConnection, changes: Row, column: str, rule: str
) -> None:
    rows = good.to_pylist()
    rows[3] |= changes
    found = violations(database, pa.Table.from_pylist(rows, schema=widened(good.schema)), rules)
    of_column = [one for one in found if one.column == column and rule in one.rule]
    assert len(of_column) == 1, found
    if "over all rows" in of_column[0].rule:
        assert of_column[0].rows == len(rows), "which of the two is wrong can't be known"
    else:
        assert (of_column[0].row, of_column[0].rows) == (4, 1)
        assert str(of_column[0]).startswith(f"row 4: {column}=")


def violations(database: duckdb.DuckDBPyConnection, data: pa.Table, rules: Rules) -> list[Violation]:
    database.register("data", data)
    return find_violations(database, "data", rules)


def widened(schema: pa.Schema) -> pa.Schema:
    """Decimals as wide as the mistakes need them."""
    return pa.schema(
        [pa.field(f.name, pa.decimal128(38, f.type.scale) if pa.types.is_decimal(f.type) else f.type) for f in schema]
    )


def test_mistakes_of_the_columns_themselves_are_found(
    good: pa.Table, rules: Rules, database: duckdb.DuckDBPyConnection
) -> None:
    times = good["ChargePeriodEnd"].cast(pa.timestamp("us"))
    wrong = (
        good.drop_columns(["BilledCost", "ChargeClass", "ChargePeriodEnd"])
        .append_column("ChargePeriodEnd", times)
        .append_column("LabName", good["x_lab"])
        .append_column("listcost", good["ListCost"])
        .drop_columns(["ListCost", "PricingQuantity", "SkuId"])
        .append_column("PricingQuantity", pa.array(["one"] * good.num_rows))
        .append_column("SkuId", pa.array([1] * good.num_rows))
    )
    found = {(one.column, one.rule.partition(",")[0]) for one in violations(database, wrong, rules)}
    assert {
        ("BilledCost", "is mandatory"),
        ("ChargeClass", "is mandatory"),
        ("ListCost", "is mandatory"),
        ("LabName", "is no column of FOCUS 1.2"),
        ("listcost", "is no column of FOCUS 1.2; FOCUS writes it ListCost"),
        ("ChargePeriodEnd", "comes after a column of one's own (x_…); FOCUS's come first"),
        ("ChargePeriodEnd", "must be a time in UTC"),
        ("PricingQuantity", "must be a number"),
        ("SkuId", "must be text"),
    } <= found


@pytest.mark.parametrize(
    ("column", "text", "rule"),
    [
        ("BilledCost", "1e-5", "plain decimal number"),
        ("BilledCost", "$5", "plain decimal number"),
        ("BilledCost", "1,000.5", "plain decimal number"),
        ("BilledCost", "+5", "plain decimal number"),
        ("ListUnitPrice", ".5", "plain decimal number"),
        ("PricingQuantity", "9" * 40, "finite number"),
        ("ChargePeriodStart", "2026-03-02 09:00:00", "such as 2026-03-02T09:00:00Z"),
        ("ChargePeriodStart", "2026-03-02T09:00:00+01:00", "such as 2026-03-02T09:00:00Z"),
        ("ChargePeriodStart", "2026-02-30T09:00:00Z", "such as 2026-03-02T09:00:00Z"),
        ("ChargePeriodStart", "", "must not be null"),
    ],
)
def test_a_mistake_in_the_text_of_a_csv_file_is_found(
    good: pa.Table, rules: Rules, tmp_path: Path, database: duckdb.DuckDBPyConnection, column: str, text: str, rule: str
) -> None:
    database.register("good", good)
    path = tmp_path / "mistake.csv"
    database.execute(
        f"COPY (SELECT * REPLACE (CASE WHEN x_part = 'idle' AND x_state = 'billed' THEN '{text}' ELSE "
        f"{_as_text(good, column)} END AS {column}) FROM good) TO '{path}' "
        "(HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ')"
    )
    source = f"read_csv('{path}', all_varchar = true, header = true)"
    found = find_violations(database, source, rules, text=True)
    assert [one.row for one in found if one.column == column and rule in one.rule] == [2], found


def _as_text(data: pa.Table, column: str) -> str:
    if pa.types.is_timestamp(data.schema.field(column).type):
        return f"strftime({column}, '%Y-%m-%dT%H:%M:%SZ')"
    return f"{column}::VARCHAR"
