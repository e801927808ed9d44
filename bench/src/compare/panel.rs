//! The figures that are charted: rows of scenarios, bars of brokers.

use super::{FIGURES, Figure, distinct, is_floor};
use serde_json::Value;

/// What is charted, by the name of the figure, the scenario a row is named after, and the titles.
const CHARTED: [(&str, &str, &str); 3] = [
    ("CPU us/delivery", "CPU per delivered message, \u{b5}s", ""),
    ("CPU us/client", "Connect and subscribe: CPU per client, \u{b5}s", "CPU per client"),
    ("RSS B/client", "Memory (RSS) per idle client, bytes", "RSS bytes per client"),
];

/// One figure of several scenarios.
#[derive(Debug, PartialEq)]
pub struct Panel {
    /// What it shows, with the unit.
    pub title: &'static str,
    /// What a row of a table is called beside the scenario; empty for what most rows are.
    pub short: &'static str,
    /// At least one.
    pub rows: Vec<Row>,
}

/// One scenario.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Its name in the results.
    pub label: String,
    /// What was run, as far as the results say.
    pub detail: String,
    /// At least one: ours, the peers, the floor.
    pub bars: Vec<Bar>,
}

/// One broker in one scenario.
#[derive(Debug, PartialEq)]
pub struct Bar {
    /// Its name in the results.
    pub broker: String,
    /// Whose it is.
    pub kind: Kind,
    /// The median of its rounds.
    pub value: f64,
    /// The value by the best peer's; without a peer by the floor's, else by its own.
    pub relative: f64,
}

/// Whose bar it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// The broker that is compared to the others.
    Ours,
    /// Another one, with its place among them.
    Peer(usize),
    /// What the kernel alone costs.
    Floor,
}

/// The panels that have something to show.
pub fn panels(results: &[Value], ours: &str) -> Vec<Panel> {
    let mut brokers: Vec<(Kind, &str)> = Vec::new();
    let mut peers = 0..;
    for name in distinct(results, "broker") {
        let kind = match () {
            () if name == ours => Kind::Ours,
            () if is_floor(results, name) => Kind::Floor,
            () => Kind::Peer(peers.next().unwrap_or_default()),
        };
        brokers.push((kind, name));
    }
    brokers.sort_by_key(|(kind, _)| *kind);
    let charted = CHARTED.iter().filter_map(|(name, title, short)| {
        let figure = FIGURES.iter().find(|figure| figure.name == *name)?;
        let labels = distinct(results, "label").into_iter();
        let rows: Vec<Row> =
            labels.filter_map(|label| row(results, figure, label, &brokers)).collect();
        (!rows.is_empty()).then_some(Panel { title, short, rows })
    });
    charted.collect()
}

fn row(results: &[Value], figure: &Figure, label: &str, brokers: &[(Kind, &str)]) -> Option<Row> {
    let fitting = |result: &&Value| result["label"] == label && figure.fits(result);
    let results: Vec<&Value> = results.iter().filter(fitting).collect();
    let medians: Vec<(Kind, &str, f64)> = brokers
        .iter()
        .filter_map(|(kind, broker)| {
            let value = figure.median(results.iter().copied(), broker)?;
            Some((*kind, *broker, value))
        })
        .collect();
    let best = |is: &dyn Fn(Kind) -> bool| {
        let values = medians.iter().filter(|(kind, _, value)| is(*kind) && *value > 0.0);
        values.map(|(_, _, value)| *value).min_by(f64::total_cmp)
    };
    let base = best(&|kind| matches!(kind, Kind::Peer(_)))
        .or_else(|| best(&|kind| kind == Kind::Floor))
        .or_else(|| best(&|_| true));
    let bars: Vec<Bar> = medians
        .iter()
        .map(|(kind, broker, value)| Bar {
            broker: (*broker).to_owned(),
            kind: *kind,
            value: *value,
            relative: base.map_or(0.0, |base| value / base),
        })
        .collect();
    // Ours, if it is among them: it is what the others are compared to.
    let first = bars.first()?;
    let detail = detail(results.iter().find(|result| result["broker"] == first.broker)?);
    Some(Row { label: label.to_owned(), detail, bars })
}

/// What a result says of its run.
fn detail(result: &Value) -> String {
    let options = &result["options"];
    let number = |value: &Value| value.as_f64().map(text);
    let mut parts = Vec::new();
    parts.extend(number(&result["count"]).map(|count| format!("n {count}")));
    if result["window"]["delivered"].as_u64().is_some_and(|count| count > 0) {
        let rate = options["rate_per_s"].as_f64();
        parts.extend(match rate {
            Some(rate) if rate > 0.0 => Some(format!("{}/s", text(rate))),
            Some(_) => {
                number(&options["window"]).map(|window| format!("flat out, window {window}"))
            }
            None => None,
        });
        parts.extend(number(&options["qos"]).map(|qos| format!("QoS {qos}")));
        parts.extend(number(&options["payload_bytes"]).map(|bytes| format!("{bytes} bytes")));
    }
    parts.join(", ")
}

/// A figure with about three digits, and commas.
pub fn text(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let (sign, whole) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut out = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// One round.
    pub fn result(label: &str, scenario: &str, broker: &str, value: f64) -> Value {
        json!({
            "label": label, "scenario": scenario, "broker": broker, "count": 1000,
            "window": { "broker_cpu_us_per_delivery": value, "delivered": 10 },
            "connect": { "broker_cpu_us_per_client": value },
            "memory": { "broker_rss_bytes_per_client": value },
            "options": { "rate_per_s": 20000, "qos": 0, "window": 4, "payload_bytes": 64 },
        })
    }

    fn bars(row: &Row) -> Vec<(&str, Kind, f64, f64)> {
        row.bars
            .iter()
            .map(|bar| (bar.broker.as_str(), bar.kind, bar.value, bar.relative))
            .collect()
    }

    #[test]
    fn bars_are_medians_by_the_best_peer() {
        let results = [
            result("p", "pairs", "b", 40.0),
            result("p", "echo", "relay", 5.0),
            result("p", "pairs", "a", 20.0),
            result("p", "pairs", "ringmq", 5.0),
            result("p", "pairs", "a", 90.0),
            result("p", "pairs", "a", 10.0),
            result("i", "idle", "ringmq", 300.0),
            result("c", "connect-subscribe", "b", 40.0),
        ];
        let panels = panels(&results, "ringmq");
        assert_eq!(panels.len(), 3);
        let pairs = &panels[0].rows[0];
        assert_eq!((panels[0].rows.len(), pairs.label.as_str()), (1, "p"));
        assert_eq!(pairs.detail, "n 1,000, 20,000/s, QoS 0, 64 bytes");
        assert_eq!(
            bars(pairs),
            [
                ("ringmq", Kind::Ours, 5.0, 0.25),
                ("b", Kind::Peer(0), 40.0, 2.0),
                ("a", Kind::Peer(1), 20.0, 1.0),
                ("relay", Kind::Floor, 5.0, 0.25),
            ]
        );
        assert_eq!(bars(&panels[1].rows[0]), [("b", Kind::Peer(0), 40.0, 1.0)]);
        assert_eq!(bars(&panels[2].rows[0]), [("ringmq", Kind::Ours, 300.0, 1.0)]);
    }

    #[test]
    fn a_row_says_what_ours_was() {
        let mut other = result("p", "pairs", "a", 1.0);
        other["count"] = json!(7);
        other["options"]["rate_per_s"] = json!(0);
        let both = [other.clone(), result("p", "pairs", "ringmq", 1.0)];
        let detail = |results: &[Value]| panels(results, "ringmq")[0].rows[0].detail.clone();
        assert_eq!(detail(&both), "n 1,000, 20,000/s, QoS 0, 64 bytes");
        assert_eq!(detail(&[other]), "n 7, flat out, window 4, QoS 0, 64 bytes");
    }

    #[test]
    fn without_a_peer_the_floor_is_the_measure() {
        let results = [result("p", "pairs", "ringmq", 11.0), result("p", "echo", "echo", 10.0)];
        let panels = panels(&results, "ringmq");
        assert_eq!(bars(&panels[0].rows[0])[0], ("ringmq", Kind::Ours, 11.0, 1.1));
    }

    #[test]
    fn what_was_not_measured_has_no_bar() {
        let mut none = result("p", "pairs", "ringmq", 0.0);
        none["window"]["broker_cpu_us_per_delivery"] = Value::Null;
        assert_eq!(panels(&[none, result("x", "probe", "ringmq", 1.0)], "ringmq"), []);
        // Nothing to divide by.
        let zero = panels(&[result("i", "idle", "ringmq", 0.0)], "ringmq");
        assert_eq!(bars(&zero[0].rows[0]), [("ringmq", Kind::Ours, 0.0, 0.0)]);
    }

    #[test]
    fn figures_have_three_digits() {
        let values = [0.0174, 0.2518, 2.688, 19.84, 348.4, 5_101.2, 1_234_567.0, -1_200.5, 20.0];
        let expected =
            ["0.017", "0.25", "2.69", "19.8", "348", "5,101", "1,234,567", "-1,200", "20"];
        assert_eq!(values.map(text), expected);
    }
}
