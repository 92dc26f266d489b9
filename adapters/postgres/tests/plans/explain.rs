//! What it costs to carry out a statement, as Postgres itself measures it.

use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection, Row};

/// The tables that grow.
pub(crate) const TABLES: [&str; 4] = ["job_specs", "job_live", "job_checkpoints", "job_runs"];

/// What a statement took that was carried out.
#[derive(Debug)]
pub(crate) struct Cost {
    /// How each scan of the tables found its rows, in the order of the names: by
    /// a range of an index, `job_live_pkey`; by all of it, `all of job_live_pkey`;
    /// or without any, `Seq Scan on job_live`.
    pub(crate) scans: Vec<String>,
    /// Whether one of them went through a bitmap.
    pub(crate) bitmap: bool,
    /// Rows that it returned.
    pub(crate) returned: u64,
    /// Rows that the scans read, and one more for each time that they were begun:
    /// Postgres tells the average of those times, rounded. So what finds nothing
    /// counts too.
    pub(crate) rows: u64,
    /// Pairs of rows that a join compared in vain.
    pub(crate) pairs: u64,
    /// Pages that were touched, in memory or not, for writing too.
    pub(crate) blocks: u64,
    /// Whether the plan was compiled.
    pub(crate) compiled: bool,
    /// The plan, for a message.
    pub(crate) plan: String,
}

/// Prepares a statement on a connection. It stays there.
pub(crate) async fn prepare(connection: &mut PgConnection, name: &str, sql: &str) {
    let prepare = format!("PREPARE {name} AS {sql}");
    let prepared = connection.execute(&*prepare).await;
    prepared.unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Plans a prepared statement, as it is planned to be carried out.
pub(crate) async fn plan(connection: &mut PgConnection, name: &str, parameters: &[String]) {
    let explain = format!("EXPLAIN {}", execute(name, parameters));
    connection.execute(&*explain).await.unwrap();
}

/// Carries out a prepared statement with these literals as its parameters, and
/// undoes it.
pub(crate) async fn carry_out(
    connection: &mut PgConnection,
    name: &str,
    parameters: &[String],
) -> Result<Cost, sqlx::Error> {
    let explain = format!(
        "EXPLAIN (ANALYZE, FORMAT JSON) {}",
        execute(name, parameters)
    );
    let mut transaction = connection.begin().await?;
    let before = blocks(&mut transaction).await?;
    let row = transaction.fetch_one(&*explain).await?;
    let after = blocks(&mut transaction).await?;
    transaction.rollback().await?;
    // It comes as `json`, which sqlx reads with another feature only.
    let explained: &str = row.try_get_unchecked(0)?;
    let explained: Value = serde_json::from_str(explained).expect("the format is JSON");
    Ok(Cost::read(&explained[0], after - before))
}

fn execute(name: &str, parameters: &[String]) -> String {
    match parameters {
        [] => format!("EXECUTE {name}"),
        some => format!("EXECUTE {name} ({})", some.join(", ")),
    }
}

/// Pages of our tables and indexes that this connection has touched. The plan does
/// not tell all of them: what a part of a statement wrote after the others were
/// done is left out there.
pub(crate) async fn blocks(connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let blocks = "SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::bigint FROM pg_class \
                  WHERE relname LIKE 'job\\_%'";
    let blocks: i64 = connection.fetch_one(blocks).await?.try_get(0)?;
    Ok(blocks as u64)
}

impl Cost {
    fn read(explained: &Value, blocks: u64) -> Self {
        let root = &explained["Plan"];
        let mut cost = Self {
            scans: Vec::new(),
            bitmap: false,
            returned: number(root, "Actual Rows"),
            rows: 0,
            pairs: 0,
            blocks,
            compiled: explained.get("JIT").is_some(),
            plan: outline(root, 0),
        };
        cost.add(root);
        cost.scans.sort_unstable();
        cost
    }

    fn add(&mut self, node: &Value) {
        let scan = text(node, "Node Type").ends_with("Scan");
        if scan && TABLES.contains(&text(node, "Relation Name")) {
            self.add_scan(node);
        }
        self.pairs += number(node, "Rows Removed by Join Filter") * number(node, "Actual Loops");
        for child in children(node) {
            self.add(child);
        }
    }

    fn add_scan(&mut self, node: &Value) {
        match text(node, "Node Type") {
            "Index Scan" | "Index Only Scan" => self.scans.push(index(node)),
            "Bitmap Heap Scan" => {
                self.bitmap = true;
                self.add_bitmap(node);
            }
            kind => self
                .scans
                .push(format!("{kind} on {}", text(node, "Relation Name"))),
        }
        let read = [
            "Actual Rows",
            "Rows Removed by Filter",
            "Rows Removed by Index Recheck",
        ];
        let each: u64 = read.iter().map(|key| number(node, key)).sum();
        self.rows += (each + 1) * number(node, "Actual Loops");
    }

    fn add_bitmap(&mut self, node: &Value) {
        for child in children(node) {
            match text(child, "Node Type") {
                "Bitmap Index Scan" => self.scans.push(index(child)),
                _ => self.add_bitmap(child),
            }
        }
    }
}

fn index(scan: &Value) -> String {
    let name = text(scan, "Index Name");
    match text(scan, "Index Cond") {
        "" => format!("all of {name}"),
        _ => name.to_owned(),
    }
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node[key].as_str().unwrap_or_default()
}

/// A count, or an average of counts. From version 18 on averages have decimals.
fn number(node: &Value, key: &str) -> u64 {
    node[key].as_f64().unwrap_or_default().ceil() as u64
}

/// A plan in the short form that people read.
fn outline(node: &Value, depth: usize) -> String {
    let mut line = format!("{}{}", "  ".repeat(depth), text(node, "Node Type"));
    for key in ["Index Name", "Relation Name", "Index Cond", "Filter"] {
        if !text(node, key).is_empty() {
            line += &format!(", {key}: {}", text(node, key));
        }
    }
    for key in ["Actual Rows", "Rows Removed by Filter", "Actual Loops"] {
        line += &format!(", {key}: {}", number(node, key));
    }
    let children = children(node).map(|child| outline(child, depth + 1));
    std::iter::once(line + "\n").chain(children).collect()
}
