//! The panels as one bar chart.
//!
//! Values of one chart are a thousand times apart, from scenario to scenario and from broker to broker. So each bar is its
//! value by the best peer's of the same scenario, on a linear axis, where a bar half as long is half the cost; a bar that
//! is longer than the axis is broken off. The value itself stands at the bar's end. Nothing is loaded from elsewhere, the
//! colours follow the reader's light or dark mode, and the same panels give the same bytes.

use super::Panel;
use super::panel::{Bar, Kind, text};
use std::borrow::Cow;
use std::fmt::{Display, Write};

/// Of the whole image.
const WIDTH: f64 = 760.0;
const MARGIN: f64 = 20.0;
/// Right of the bars, for the values.
const VALUES: f64 = 130.0;
/// A character of the small text is about as wide.
const CHARACTER: f64 = 7.0;
const BAR: f64 = 14.0;
const BAR_STEP: f64 = 18.0;
/// The ratio at the end of the axis is within these.
const AXIS: (f64, f64) = (1.5, 3.0);
const TICK: f64 = 0.5;
/// Longer names are cut.
const NAME_MAX: usize = 24;
const HEADING_MAX: usize = 90;
/// Colours of peers, in light and in dark mode; more peers begin again.
const PEERS: [(&str, &str); 6] = [
    ("#d97706", "#fbbf24"),
    ("#059669", "#34d399"),
    ("#9333ea", "#c084fc"),
    ("#db2777", "#f472b6"),
    ("#0891b2", "#22d3ee"),
    ("#65a30d", "#a3e635"),
];
/// Other colours: class, property, light, dark.
const COLOURS: [(&str, &str, &str, &str); 7] = [
    ("back", "fill", "#ffffff", "#0d1117"),
    ("text", "fill", "#1f2328", "#e6edf3"),
    ("soft", "fill", "#59636e", "#9198a1"),
    ("grid", "stroke", "#d1d9e0", "#30363d"),
    ("one", "stroke", "#59636e", "#9198a1"),
    ("ours", "fill", "#2563eb", "#60a5fa"),
    ("floor", "fill", "#9ca3af", "#6b7280"),
];

/// The chart.
pub fn chart(panels: &[Panel]) -> String {
    let bars = || panels.iter().flat_map(|panel| &panel.rows).flat_map(|row| &row.bars);
    let longest = bars().map(|bar| cut(&bar.broker, NAME_MAX).chars().count()).max();
    let names = width_of(longest.unwrap_or_default());
    let most = bars().map(|bar| bar.relative).fold(AXIS.0, f64::max).min(AXIS.1);
    let mut drawing = Drawing {
        out: String::new(),
        left: MARGIN + names + 8.0,
        axis_end: (most / TICK).ceil() * TICK,
    };
    let mut y = 34.0;
    drawing.text(MARGIN, y, "text title", "start", "Brokers compared");
    y += 18.0;
    let note = "Bars: by the best peer of the scenario (1.0). Numbers: medians as measured. Shorter is better.";
    drawing.text(MARGIN, y, "soft", "start", note);
    for panel in panels {
        y = drawing.panel(panel, y + 34.0);
    }
    let height = y + MARGIN;
    let (mut light, mut dark) = (String::new(), String::new());
    for (class, property, in_light, in_dark) in COLOURS {
        add(&mut light, format_args!(".{class}{{{property}:{in_light}}}"));
        add(&mut dark, format_args!(".{class}{{{property}:{in_dark}}}"));
    }
    for (place, (in_light, in_dark)) in PEERS.iter().enumerate() {
        add(&mut light, format_args!(".peer{place}{{fill:{in_light}}}"));
        add(&mut dark, format_args!(".peer{place}{{fill:{in_dark}}}"));
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
         height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title note\">\n\
         <title id=\"title\">Brokers compared</title>\n<desc id=\"note\">{note}</desc>\n\
         <style>text{{font-family:system-ui,-apple-system,\"Segoe UI\",Helvetica,Arial,sans-serif;font-size:12px}}\
         .title{{font-size:18px;font-weight:600}}.head{{font-size:14px;font-weight:600}}.strong{{font-weight:600}}\n\
         {light}\n@media (prefers-color-scheme:dark){{{dark}}}</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n{}</svg>\n",
        drawing.out
    )
}

struct Drawing {
    out: String,
    /// Where bars begin.
    left: f64,
    /// The ratio at the end of the axis.
    axis_end: f64,
}

impl Drawing {
    /// Where a ratio is on the axis.
    fn x(&self, relative: f64) -> f64 {
        let right = WIDTH - MARGIN - VALUES;
        self.left + (right - self.left) * relative.clamp(0.0, self.axis_end) / self.axis_end
    }

    /// Draws a panel whose title stands on `y`; gives its lower end.
    fn panel(&mut self, panel: &Panel, mut y: f64) -> f64 {
        self.text(MARGIN, y, "text head", "start", panel.title);
        y += 20.0;
        for tick in self.ticks() {
            self.text(self.x(tick), y, "soft", "middle", &format!("{tick:.1}"));
        }
        for row in &panel.rows {
            y += 24.0;
            let label = cut(&row.label, HEADING_MAX);
            let detail = cut(&row.detail, HEADING_MAX - label.chars().count().min(HEADING_MAX));
            let heading = format_args!(
                "<text class=\"text\" x=\"{MARGIN:.1}\" y=\"{y:.1}\"><tspan class=\"strong\">{}</tspan>\
                 <tspan class=\"soft\" dx=\"8\">{}</tspan></text>\n",
                escape(&label),
                escape(&detail)
            );
            add(&mut self.out, heading);
            y += 6.0;
            self.grid(y, y + number(row.bars.len()) * BAR_STEP);
            for bar in &row.bars {
                self.bar(bar, y);
                y += BAR_STEP;
            }
        }
        y
    }

    /// The ratios that have a line.
    fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let end = self.axis_end;
        (0_u32..).map(|place| f64::from(place) * TICK).take_while(move |tick| *tick <= end)
    }

    /// Draws the lines behind the bars of a row.
    fn grid(&mut self, top: f64, bottom: f64) {
        for tick in self.ticks() {
            let (x, class) = (self.x(tick), if tick == 1.0 { "one" } else { "grid" });
            let line = format_args!(
                "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n"
            );
            add(&mut self.out, line);
        }
    }

    /// Draws a bar below `y`, with its broker and its value.
    fn bar(&mut self, bar: &Bar, y: f64) {
        let base = y + BAR - 3.0;
        let name = cut(&bar.broker, NAME_MAX);
        let weight = if bar.kind == Kind::Ours { "text strong" } else { "text" };
        self.text(self.left - 8.0, base, weight, "end", &name);
        let class = match bar.kind {
            Kind::Ours => "ours".to_owned(),
            Kind::Peer(place) => format!("peer{}", place % PEERS.len()),
            Kind::Floor => "floor".to_owned(),
        };
        let (left, end) = (self.left, self.x(bar.relative));
        let tip = format!("{}: {} ({:.2}\u{d7})", bar.broker, text(bar.value), bar.relative);
        let rect = format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"><title>{}</title></rect>\n",
            end - left,
            escape(&tip)
        );
        add(&mut self.out, rect);
        if bar.relative > self.axis_end {
            // Two cuts across the end say that it goes on.
            for cut in [14.0, 22.0] {
                let (x, low) = (end - cut, y + BAR + 1.0);
                let line = format_args!(
                    "<path class=\"back\" d=\"M{x:.1} {low:.1}l5 -{0}h3l-5 {0}z\"/>\n",
                    BAR + 2.0
                );
                add(&mut self.out, line);
            }
        }
        let (value, ratio) = (text(bar.value), format!("{:.2}\u{d7}", bar.relative));
        // The lines end before the value instead of striking it through.
        let length = width_of(value.chars().count() + ratio.chars().count()) + 12.0;
        let (left, top) = (end + 1.0, y - 1.0);
        let value = format_args!(
            "<rect class=\"back\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"16\"/>\
             <text class=\"{weight}\" x=\"{:.1}\" y=\"{base:.1}\">{value}<tspan class=\"soft\" dx=\"6\">{ratio}</tspan></text>\n",
            end + 6.0,
        );
        add(&mut self.out, value);
    }

    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let element = format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
            escape(text)
        );
        add(&mut self.out, element);
    }
}

fn add(out: &mut String, text: impl Display) {
    write!(out, "{text}").expect("a string takes all that is written to it");
}

#[expect(clippy::cast_precision_loss, reason = "a handful of bars or characters")]
fn number(count: usize) -> f64 {
    count as f64
}

fn width_of(characters: usize) -> f64 {
    number(characters) * CHARACTER
}

/// At most `max` characters.
fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.chars().count() <= max {
        return text.into();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('\u{2026}');
    short.into()
}

/// As text or as the value of an attribute; characters that XML does not allow at all are replaced.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\r' | '\t' => out.push(' '),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::panel::{panels, tests::result};
    use super::*;

    /// Checks that tags are closed in turn, attributes quoted, and entities known; gives the names of the elements.
    fn elements(svg: &str) -> Result<Vec<String>, String> {
        let (mut open, mut seen, mut rest) = (Vec::new(), Vec::new(), svg);
        while let Some(start) = rest.find('<') {
            text_is_well_formed(&rest[..start])?;
            let end = rest[start..].find('>').ok_or("a tag does not end")? + start;
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                let opened = open.pop().ok_or(format!("{name} was not open"))?;
                if opened != name {
                    return Err(format!("{name} closes {opened}"));
                }
                continue;
            }
            let inner = tag.strip_suffix('/').unwrap_or(tag);
            let (name, attributes) = inner.split_once(' ').unwrap_or((inner, ""));
            // Name, value, name, value, nothing.
            let parts: Vec<&str> = attributes.split('"').collect();
            let are_quoted = parts.len() % 2 == 1
                && parts.iter().step_by(2).all(|name| {
                    let name = name.trim();
                    name.is_empty()
                        || name.strip_suffix('=').is_some_and(|name| {
                            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                        })
                });
            if !are_quoted || name.is_empty() {
                return Err(format!("bad tag {tag}"));
            }
            attributes.split('"').skip(1).step_by(2).try_for_each(text_is_well_formed)?;
            seen.push(name.to_owned());
            if inner.len() == tag.len() {
                open.push(name.to_owned());
            }
        }
        text_is_well_formed(rest)?;
        if open.is_empty() { Ok(seen) } else { Err(format!("{open:?} are open")) }
    }

    fn text_is_well_formed(text: &str) -> Result<(), String> {
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
            if !known.iter().any(|known| entity.starts_with(known)) {
                return Err(format!("bad entity &{entity}"));
            }
        }
        match text.chars().any(|c| c == '>' || (c.is_control() && c != '\n') || c == '\u{ffff}') {
            true => Err(format!("bad character in {text:?}")),
            false => Ok(()),
        }
    }

    fn of(results: &[serde_json::Value]) -> String {
        chart(&panels(results, "ringmq"))
    }

    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.split("<rect class=").skip(1).filter(|bar| !bar.starts_with("\"back"));
        bars.map(|bar| bar.split("width=\"").nth(1).unwrap().split('"').next().unwrap())
            .map(|width| width.parse().unwrap())
            .collect()
    }

    #[test]
    fn the_checker_of_these_tests_finds_faults() {
        assert_eq!(elements("<a b=\"c\"><d/>x &amp; y</a>"), Ok(vec!["a".into(), "d".into()]));
        for bad in
            ["<a>", "<a></b>", "</a>", "<a b=c/>", "<a b=\"c/>", "<a>&x</a>", "<a>></a>", "<a"]
        {
            assert!(elements(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chart_is_well_formed_and_always_the_same() {
        let results = [
            result("p", "pairs", "mosquitto", 10.0),
            result("p", "pairs", "ringmq", 2.0),
            result("i", "idle", "ringmq", 348.0),
            result("c", "connect-subscribe", "ringmq", 23.8),
        ];
        let svg = of(&results);
        let elements = elements(&svg).expect("well formed");
        assert_eq!(elements.iter().filter(|name| *name == "svg").count(), 1);
        assert_eq!(widths(&svg).len(), 4);
        assert_eq!(svg, of(&results));
        assert!(svg.contains("@media (prefers-color-scheme:dark)"));
        for elsewhere in ["url(", "href", "@import", "<script", "src="] {
            assert!(!svg.contains(elsewhere), "{elsewhere}");
        }
        assert!(svg.contains(">23.8<") && svg.contains(">348<"), "values stand at the bars");
    }

    #[test]
    fn names_cannot_break_out() {
        let evil = "</text><script>alert('1')</script>&\"\u{1}\u{ffff}";
        let results = [result(evil, "pairs", evil, 1.0), result("p", "pairs", "\u{e9}<b", 2.0)];
        let svg = chart(&panels(&results, evil));
        let elements = elements(&svg).expect("well formed");
        assert!(!elements.contains(&"script".to_owned()));
        assert!(svg.contains("\u{e9}&lt;b"));
        assert_eq!(escape("a<b>&\"'\n\u{1}"), "a&lt;b&gt;&amp;&quot;&#39; \u{fffd}");
    }

    #[test]
    fn a_bar_is_as_long_as_its_ratio_to_the_best_peer() {
        let svg = of(&[
            result("p", "pairs", "ringmq", 0.25),
            result("p", "pairs", "a", 0.5),
            result("p", "pairs", "b", 10.0),
        ]);
        let widths = widths(&svg);
        assert!((widths[1] - 2.0 * widths[0]).abs() < 0.2, "{widths:?}");
        // Twenty times the best: broken off at the end of the axis.
        assert!((widths[2] - AXIS.1 * widths[1]).abs() < 0.3, "{widths:?}");
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains(">10<") && svg.contains("20.00\u{d7}"));
    }

    #[test]
    fn nothing_is_wider_than_the_image() {
        let name = "n".repeat(200);
        let svg = of(&[result(&name, "pairs", &name, 3.0), result(&name, "pairs", "ringmq", 9.0)]);
        // Not where a pointer shows them, within <title>.
        assert!(!svg.contains(&format!("\">{}", "n".repeat(HEADING_MAX))), "long names are cut");
        assert!(widths(&svg).iter().all(|width| (100.0..WIDTH - VALUES).contains(width)));
    }
}
