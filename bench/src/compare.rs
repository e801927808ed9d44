//! One table of several results: the median of the rounds of each broker, and the ratio of ours to each other's; on request a
//! chart and a short table of the figures that matter most.

mod markdown;
mod panel;
mod svg;

use crate::cli::CompareArgs;
use crate::error::BenchError;
use crate::report::round;
use panel::Panel;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A figure that is compared: its name, where it is in a result, and the scenarios it is for (empty: all with messages).
struct Figure {
    name: &'static str,
    path: [&'static str; 2],
    scenarios: &'static [&'static str],
}

const MESSAGES: &[&str] = &["pairs", "fanout", "fanin", "hot-pair", "echo", "storm"];
const CONNECTS: &[&str] = &["connect-subscribe", "churn", "conn-tcp-10k-100", "conn-tcp-1M-5K"];
const IDLE: &[&str] = &["idle", "conn-tcp-10k-100", "conn-tcp-1M-5K"];
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
        scenarios: CONNECTS,
    },
    Figure { name: "clients/s", path: ["connect", "clients_per_s"], scenarios: CONNECTS },
    Figure {
        name: "RSS B/client",
        path: ["memory", "broker_rss_bytes_per_client"],
        scenarios: IDLE,
    },
    Figure { name: "idle CPU %", path: ["window", "broker_cpu_percent"], scenarios: IDLE },
    Figure { name: "storm s", path: ["storm", "seconds"], scenarios: &["storm"] },
    Figure {
        name: "storm CPU us/client",
        path: ["storm", "broker_cpu_us_per_client"],
        scenarios: &["storm"],
    },
    Figure { name: "probe p99 ratio", path: ["probe", "p99_ratio"], scenarios: &["hostile"] },
    Figure {
        name: "RSS after",
        path: ["memory", "broker_rss_after_bytes"],
        scenarios: &["hostile"],
    },
];

impl Figure {
    /// Whether a result is of a scenario that this figure is for. One that is not known here is taken for what it did.
    fn fits(&self, result: &Value) -> bool {
        let scenario = result["scenario"].as_str().unwrap_or_default();
        if self.scenarios.contains(&scenario) {
            return true;
        }
        if FIGURES.iter().any(|figure| figure.scenarios.contains(&scenario)) {
            return false;
        }
        let has_delivered = result["window"]["delivered"].as_u64().is_some_and(|count| count > 0);
        self.of(result).is_some() && has_delivered == (self.scenarios == MESSAGES)
    }

    fn of(&self, result: &Value) -> Option<f64> {
        result[self.path[0]][self.path[1]].as_f64()
    }

    /// The median of a broker's rounds.
    fn median<'a>(
        &self,
        results: impl IntoIterator<Item = &'a Value>,
        broker: &str,
    ) -> Option<f64> {
        let of_broker = results.into_iter().filter(|result| result["broker"] == broker);
        median(of_broker.filter_map(|result| self.of(result)).collect())
    }
}

/// Prints the table, and writes what else is wanted.
pub fn compare(args: &CompareArgs) -> Result<(), BenchError> {
    let results = args.files.iter().map(|path| load(path)).collect::<Result<Vec<_>, _>>()?;
    let brokers = distinct(&results, "broker");
    let ours = match args.ours.as_deref() {
        Some(name) if !brokers.contains(&name) => {
            let text = format!("--ours is one of {}, not {name}", brokers.join(", "));
            return Err(BenchError::Option(text));
        }
        Some(name) => name,
        None => default_ours(&results),
    };
    for line in table(&results, ours) {
        println!("{line}");
    }
    let panels = panel::panels(&results, ours);
    if (args.svg.is_some() || args.markdown.is_some()) && panels.is_empty() {
        return Err(BenchError::NothingToChart);
    }
    if let Some(path) = &args.svg {
        save(path, &svg::chart(&panels))?;
    }
    match &args.markdown {
        None => Ok(()),
        Some(path) if path.as_os_str() == "-" => {
            print!("\n{}", markdown::table(&panels, ours));
            Ok(())
        }
        Some(path) => save(path, &markdown::table(&panels, ours)),
    }
}

fn save(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(|source| BenchError::File { path: path.to_owned(), source })
}

/// Reads a result, and checks that it is one.
fn load(path: &Path) -> Result<Value, BenchError> {
    let text = fs::read_to_string(path)
        .map_err(|source| BenchError::File { path: path.to_owned(), source })?;
    let value = serde_json::from_str(&text).map_err(|error| error.to_string());
    value
        .and_then(|value| check(&value).map(|()| value))
        .map_err(|reason| BenchError::Result { path: path.to_owned(), reason })
}

/// Says what a result lacks.
fn check(result: &Value) -> Result<(), String> {
    for key in ["label", "scenario", "broker"] {
        if !result[key].is_string() {
            return Err(format!("it has no {key:?}"));
        }
    }
    match FIGURES.iter().any(|figure| figure.fits(result) && figure.of(result).is_some()) {
        true => Ok(()),
        false => Err(format!(
            "it has no figure of scenario {} (was it run without --broker-pid?)",
            result["scenario"]
        )),
    }
}

/// Whether a broker is none: only the kernel's floor was measured under this name.
fn is_floor(results: &[Value], broker: &str) -> bool {
    let mut of_broker = results.iter().filter(|result| result["broker"] == broker);
    of_broker.all(|result| result["scenario"] == "echo")
}

fn default_ours(results: &[Value]) -> &str {
    let brokers = distinct(results, "broker");
    let find = |is: &dyn Fn(&str) -> bool| brokers.iter().copied().find(|name| is(name));
    find(&|name| name.eq_ignore_ascii_case("ringmq"))
        .or_else(|| find(&|name| !is_floor(results, name)))
        .or(brokers.first().copied())
        .unwrap_or_default()
}

fn table(results: &[Value], ours: &str) -> Vec<String> {
    let brokers = distinct(results, "broker");
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
            if !of_label.iter().any(|result| figure.fits(result)) {
                continue;
            }
            let of = |broker: &str| figure.median(of_label.iter().copied(), broker);
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
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
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
        let lines = table(&results, default_ours(&results));
        assert!(lines[0].contains("ringmq | mosquitto | ratio"), "{}", lines[0]);
        let cells: Vec<&str> = lines[2].split('|').map(str::trim).collect();
        assert_eq!(cells[1..7], ["p", "CPU us/delivery", "5", "20", "0.250", "3"]);
    }

    #[test]
    fn the_median_of_an_even_number_of_rounds_is_between_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![4.0]), Some(4.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn ours_is_ringmq_or_the_first_that_is_a_broker() {
        let mut results = vec![result("relay", 1.0), result("nanomq", 1.0), result("RingMQ", 1.0)];
        results[0]["scenario"] = json!("echo");
        assert_eq!(default_ours(&results), "RingMQ");
        results.pop();
        assert_eq!(default_ours(&results), "nanomq");
        results.pop();
        assert_eq!(default_ours(&results), "relay");
    }

    #[test]
    fn a_scenario_unknown_here_is_taken_for_what_it_did() {
        let mut messages = result("a", 1.0);
        messages["scenario"] = json!("sharedsub-1K-5-1K-1K");
        messages["window"]["delivered"] = json!(5);
        messages["connect"] = json!({ "broker_cpu_us_per_client": 7.0 });
        let lines = table(&[messages.clone()], "a");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].contains("CPU us/delivery"), "{}", lines[2]);
        messages["window"]["delivered"] = json!(0);
        let lines = table(&[messages], "a");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[2].contains("CPU us/client"), "{}", lines[2]);
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        assert_eq!(check(&result("a", 1.0)), Ok(()));
        let reason = |value: Value| check(&value).expect_err("no result");
        assert_eq!(reason(json!([1])), "it has no \"label\"");
        assert_eq!(reason(json!({ "label": "a", "scenario": "b" })), "it has no \"broker\"");
        let mut empty = result("a", 1.0);
        empty["window"] = json!({ "broker_cpu_us_per_delivery": "1" });
        assert!(reason(empty).starts_with("it has no figure of scenario \"pairs\""));
    }

    #[test]
    fn a_bad_file_is_named_in_one_line() {
        let path = std::env::temp_dir().join(format!("ringmq-compare-{}.json", std::process::id()));
        for text in [None, Some("{ \"label\""), Some("{}")] {
            if let Some(text) = text {
                fs::write(&path, text).expect("a file");
            }
            let error = load(&path).expect_err("no result").to_string();
            assert!(
                error.contains(path.to_str().expect("a path")) && !error.contains('\n'),
                "{error}"
            );
        }
        fs::remove_file(path).expect("it is there");
    }
}
