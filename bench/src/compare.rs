//! One table of several results: the median of the rounds of each broker, and the ratio of ours to each other's.

use crate::cli::CompareArgs;
use crate::error::BenchError;
use crate::report::round;
use serde_json::Value;
use std::fs;

/// A figure that is compared: its name, where it is in a result, and the scenarios it is for (empty: all with messages).
struct Figure {
    name: &'static str,
    path: [&'static str; 2],
    scenarios: &'static [&'static str],
}

const MESSAGES: &[&str] = &["pairs", "fanout", "fanin", "hot-pair", "echo"];
const FIGURES: &[Figure] = &[
    Figure {
        name: "CPU us/delivery",
        path: ["window", "broker_cpu_us_per_delivery"],
        scenarios: MESSAGES,
    },
    Figure { name: "delivered/s", path: ["window", "delivered_per_s"], scenarios: MESSAGES },
    Figure { name: "p50 us", path: ["latency_us", "p50"], scenarios: &["probe"] },
    Figure { name: "p99 us", path: ["latency_us", "p99"], scenarios: MESSAGES },
    Figure { name: "p99 us", path: ["latency_us", "p99"], scenarios: &["probe"] },
    Figure {
        name: "broker switches/delivery",
        path: ["window", "broker_switches_per_delivery"],
        scenarios: MESSAGES,
    },
    Figure {
        name: "generator CPU %",
        path: ["window", "generator_cpu_percent"],
        scenarios: MESSAGES,
    },
    Figure { name: "lost", path: ["totals", "lost"], scenarios: MESSAGES },
    Figure {
        name: "CPU us/client",
        path: ["connect", "broker_cpu_us_per_client"],
        scenarios: &["connect-subscribe"],
    },
    Figure {
        name: "clients/s",
        path: ["connect", "clients_per_s"],
        scenarios: &["connect-subscribe"],
    },
    Figure {
        name: "RSS B/client",
        path: ["memory", "broker_rss_bytes_per_client"],
        scenarios: &["idle"],
    },
    Figure { name: "idle CPU %", path: ["window", "broker_cpu_percent"], scenarios: &["idle"] },
    Figure { name: "probe p99 ratio", path: ["probe", "p99_ratio"], scenarios: &["hostile"] },
    Figure {
        name: "RSS after",
        path: ["memory", "broker_rss_after_bytes"],
        scenarios: &["hostile"],
    },
];

/// Prints the table.
pub fn compare(args: &CompareArgs) -> Result<(), BenchError> {
    let mut results = Vec::new();
    for path in &args.files {
        let text = fs::read_to_string(path)
            .map_err(|source| BenchError::File { path: path.clone(), source })?;
        let value: Value = serde_json::from_str(&text).map_err(|error| BenchError::Result {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        for key in ["label", "scenario", "broker"] {
            if !value[key].is_string() {
                let reason = format!("it has no {key:?}");
                return Err(BenchError::Result { path: path.clone(), reason });
            }
        }
        results.push(value);
    }
    for line in table(&results, args.ours.as_deref()) {
        println!("{line}");
    }
    Ok(())
}

fn table(results: &[Value], ours: Option<&str>) -> Vec<String> {
    let brokers = distinct(results, "broker");
    let ours = ours
        .or_else(|| brokers.iter().find(|name| name.eq_ignore_ascii_case("ringmq")).copied())
        // An echo is the floor to compare with, no broker.
        .or_else(|| brokers.iter().find(|name| **name != "echo").copied())
        .or(brokers.first().copied())
        .unwrap_or_default();
    let others: Vec<&str> = brokers.iter().copied().filter(|name| *name != ours).collect();
    let mut head = vec!["scenario".to_owned(), "figure".to_owned(), ours.to_owned()];
    for other in &others {
        head.push((*other).to_owned());
        head.push("ratio".to_owned());
    }
    head.push("rounds".to_owned());
    let mut rows = vec![head];
    for label in distinct(results, "label") {
        let of_label: Vec<&Value> = results.iter().filter(|r| r["label"] == label).collect();
        for figure in FIGURES {
            if !figure.scenarios.iter().any(|name| of_label.iter().any(|r| r["scenario"] == **name))
            {
                continue;
            }
            let of = |broker: &str| {
                let values = of_label.iter().filter(|r| r["broker"] == broker);
                median(values.filter_map(|r| r[figure.path[0]][figure.path[1]].as_f64()).collect())
            };
            let mine = of(ours);
            let mut row = vec![label.to_owned(), figure.name.to_owned(), text(mine)];
            for other in &others {
                let theirs = of(other);
                row.push(text(theirs));
                row.push(match (mine, theirs) {
                    (Some(mine), Some(theirs)) if theirs > 0.0 => format!("{:.3}", mine / theirs),
                    _ => "-".to_owned(),
                });
            }
            let rounds = of_label.iter().filter(|r| r["broker"] == of_label[0]["broker"]).count();
            row.push(rounds.to_string());
            rows.push(row);
        }
    }
    align(&rows)
}

fn distinct<'a>(results: &'a [Value], key: &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in results.iter().filter_map(|result| result[key].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn text(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 100.0 => round(value, 0).to_string(),
        Some(value) => round(value, 3).to_string(),
    }
}

/// A Markdown table whose columns are aligned.
fn align(rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(column, (cell, width))| {
                    if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        lines.push(format!("| {} |", cells.join(" | ")));
        if index == 0 {
            let rule: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(column, width)| match column {
                    0 | 1 => "-".repeat(*width),
                    _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
                })
                .collect();
            lines.push(format!("| {} |", rule.join(" | ")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(broker: &str, cpu: f64) -> Value {
        json!({ "label": "p", "scenario": "pairs", "broker": broker,
                "window": { "broker_cpu_us_per_delivery": cpu } })
    }

    #[test]
    fn ratio_is_of_the_medians() {
        let results = [
            result("mosquitto", 10.0),
            result("ringmq", 1.0),
            result("mosquitto", 30.0),
            result("ringmq", 5.0),
            result("mosquitto", 20.0),
            result("ringmq", 90.0),
        ];
        let lines = table(&results, None);
        assert!(lines[0].contains("ringmq | mosquitto | ratio"), "{}", lines[0]);
        let cells: Vec<&str> = lines[2].split('|').map(str::trim).collect();
        assert_eq!(cells[1..7], ["p", "CPU us/delivery", "5", "20", "0.250", "3"]);
    }
}
