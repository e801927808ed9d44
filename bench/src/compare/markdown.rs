//! The charted figures as a table that can be put into a text: a column for each broker, and our ratio to it.

use super::Panel;
use super::panel::{Bar, Kind, Row, text};

/// The table, with what it shows in a line before.
pub fn table(panels: &[Panel], ours: &str) -> String {
    let rows = || panels.iter().flat_map(|panel| panel.rows.iter().map(move |row| (panel, row)));
    let mut brokers: Vec<(Kind, &str)> = Vec::new();
    for bar in rows().flat_map(|(_, row)| &row.bars) {
        if !brokers.contains(&(bar.kind, &bar.broker)) {
            brokers.push((bar.kind, &bar.broker));
        }
    }
    brokers.sort_by_key(|(kind, _)| *kind);
    let mut head = vec!["scenario".to_owned()];
    let mut rule = vec!["---".to_owned()];
    for (kind, broker) in &brokers {
        head.push(escape(broker));
        rule.push("---:".to_owned());
        if *kind != Kind::Ours {
            head.push("ratio".to_owned());
            rule.push("---:".to_owned());
        }
    }
    let mut lines = vec![
        format!(
            "Medians. CPU of the broker in microseconds per delivered message, unless the row says otherwise; ratio: {} \
             to the broker before it.",
            escape(ours)
        ),
        String::new(),
        line(&head),
        line(&rule),
    ];
    for (panel, row) in rows() {
        let mut cells = vec![name(panel, row)];
        let ours = row.bars.iter().find(|bar| bar.kind == Kind::Ours);
        for (kind, broker) in &brokers {
            let bar = row.bars.iter().find(|bar| bar.broker == *broker);
            cells.push(bar.map_or_else(String::new, |bar| text(bar.value)));
            if *kind != Kind::Ours {
                cells.push(ratio(ours, bar));
            }
        }
        lines.push(line(&cells));
    }
    lines.join("\n") + "\n"
}

fn ratio(ours: Option<&Bar>, other: Option<&Bar>) -> String {
    match (ours, other) {
        (Some(ours), Some(other)) if other.value > 0.0 => {
            format!("{:.2}", ours.value / other.value)
        }
        _ => String::new(),
    }
}

fn name(panel: &Panel, row: &Row) -> String {
    let parts = [row.detail.as_str(), panel.short].into_iter().filter(|part| !part.is_empty());
    let parts: Vec<String> = parts.map(escape).collect();
    match parts.is_empty() {
        true => escape(&row.label),
        false => format!("{}: {}", escape(&row.label), parts.join(", ")),
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// Keeps a text within its cell.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '|' | '\\' | '`' | '*' | '_' | '<' | '[' => out.extend(['\\', character]),
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::panel::{panels, tests::result};
    use super::*;

    #[test]
    fn a_row_has_values_and_ratios() {
        let results = [
            result("p", "pairs", "FlashMQ", 5.12),
            result("p", "pairs", "ringmq", 2.69),
            result("i", "idle", "ringmq", 348.0),
            result("i", "idle", "mosquitto", 1_032.0),
        ];
        let table = table(&panels(&results, "ringmq"), "ringmq");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[2], "| scenario | ringmq | FlashMQ | ratio | mosquitto | ratio |");
        assert_eq!(lines[3], "| --- | ---: | ---: | ---: | ---: | ---: |");
        let expected = "| p: n 1,000, 20,000/s, QoS 0, 64 bytes | 2.69 | 5.12 | 0.53 |  |  |";
        assert_eq!(lines[4], expected);
        assert!(lines[5].ends_with("RSS bytes per client | 348 |  |  | 1,032 | 0.34 |"), "{table}");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn a_name_stays_in_its_cell() {
        let results = [result("a|b\nc", "pairs", "x|y", 1.0)];
        let table = table(&panels(&results, "x|y"), "x|y");
        let row = table.lines().nth(4).expect("a row");
        assert!(row.starts_with(r"| a\|b c: "), "{row}");
        assert_eq!(table.lines().nth(2), Some(r"| scenario | x\|y |"));
    }
}
