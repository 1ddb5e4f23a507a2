"""Fills a new Superset: a database of sales, charts and a dashboard; prints the cookie of its user's session."""

import json
import os
import sqlite3

from superset.app import create_app

FOLDER = os.path.dirname(os.environ["SUPERSET_CONFIG_PATH"])
SALES = os.path.join(FOLDER, "sales.db")
TOTAL = {"expressionType": "SQL", "sqlExpression": "SUM(amount)", "label": "total"}

with sqlite3.connect(SALES) as sales:
    sales.execute("CREATE TABLE sales (day DATE, region TEXT, product TEXT, amount REAL)")
    rows = (
        (f"2025-{1 + n % 12:02d}-{1 + n % 28:02d}", f"region {n % 7}", f"product {n % 23}", n % 97) for n in range(5000)
    )
    sales.executemany("INSERT INTO sales VALUES (?, ?, ?, ?)", rows)

app = create_app()
with app.app_context():
    from superset import db
    from superset.connectors.sqla.models import SqlaTable
    from superset.models.core import Database
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice

    database = Database(database_name="sales", sqlalchemy_uri=f"sqlite:///{SALES}")
    table = SqlaTable(table_name="sales", schema="main", database=database)
    db.session.add_all([database, table])
    db.session.flush()
    table.fetch_metadata()
    source = {"id": table.id, "type": "table"}
    query = {"columns": ["region", "product"], "metrics": [TOTAL], "filters": [], "orderby": [], "row_limit": 100}
    context = {"datasource": source, "queries": [query], "result_format": "json", "result_type": "full"}
    charts = [
        Slice(
            slice_name=f"Sales {number}",
            viz_type="table",
            datasource_id=table.id,
            datasource_type="table",
            params=json.dumps({"viz_type": "table", "datasource": f"{table.id}__table"}),
            query_context=json.dumps(context),
        )
        for number in range(3)
    ]
    db.session.add(Dashboard(dashboard_title="Sales", published=True, slices=charts))
    db.session.commit()

client = app.test_client()
client.post("/login/", data={"username": "admin", "password": "admin"})
print(f"session={client.get_cookie('session').value}")
