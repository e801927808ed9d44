//! The tables, in Markdown.

use crate::driver::Row;
use crate::meter::Routes;
use crate::routes::thousands;

/// The operations: name, instructions, nanoseconds.
pub fn operations(rows: &[Row]) -> Vec<String> {
    let head = ["operation", "instructions/op", "ns/op"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let ns = row.ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}"));
        [row.name.clone(), format!("{:.1}", per(row.instructions, row.operations)), ns]
    });
    align(&[head].into_iter().chain(cells).collect::<Vec<_>>())
}

/// What routes take.
pub fn routes(routes: &[Routes]) -> Vec<String> {
    let head = [
        "routes",
        "kind",
        "own shard, bytes/route",
        "another shard, bytes/route",
        "both, MiB",
        "RSS of both, MiB",
    ];
    let cells = routes.iter().map(|routes| {
        let each = |bytes: usize| format!("{:.1}", per(bytes as u64, routes.count));
        let mib = |bytes: usize| format!("{:.1}", per(bytes as u64, 1 << 20));
        [
            thousands(routes.count),
            routes.kind.clone(),
            each(routes.own_bytes),
            each(routes.other_bytes),
            mib(routes.own_bytes + routes.other_bytes),
            mib(routes.resident_bytes),
        ]
    });
    align(&[head.map(str::to_owned)].into_iter().chain(cells).collect::<Vec<_>>())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn per(count: u64, by: usize) -> f64 {
    count as f64 / by as f64
}

/// The first column to the left, the others to the right.
fn align<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].len()).max().unwrap_or_default()
    });
    let line = |row: &[String; N]| {
        let cells: Vec<String> = (0..N)
            .map(|column| match (column, &row[column], widths[column]) {
                (0, cell, width) => format!("{cell:<width$}"),
                (_, cell, width) => format!("{cell:>width$}"),
            })
            .collect();
        format!("| {} |", cells.join(" | "))
    };
    let rule: [String; N] = std::array::from_fn(|column| match column {
        0 => "-".repeat(widths[column]),
        _ => format!("{}:", "-".repeat(widths[column] - 1)),
    });
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, line(&rule));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_one_operation() {
        let row = |name: &str, instructions, ns| Row {
            name: name.to_owned(),
            operations: 1_000,
            instructions,
            ns,
        };
        let lines = operations(&[row("a", 3_004, Some(1.26)), row("longer", 123_456, None)]);
        assert_eq!(
            lines,
            [
                "| operation | instructions/op | ns/op |",
                "| --------- | --------------: | ----: |",
                "| a         |             3.0 |   1.3 |",
                "| longer    |           123.5 |     - |",
            ]
        );
    }

    #[test]
    fn bytes_are_those_of_one_route() {
        let routes = [Routes {
            kind: "exact".to_owned(),
            count: 2_048,
            own_bytes: 1 << 20,
            other_bytes: 1 << 19,
            resident_bytes: 3 << 20,
        }];
        let cells: Vec<String> =
            super::routes(&routes)[2].split('|').map(|cell| cell.trim().to_owned()).collect();
        assert_eq!(cells[1..7], ["2,048", "exact", "512.0", "256.0", "1.5", "3.0"]);
    }
}
