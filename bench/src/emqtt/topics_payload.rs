//! `--topics-payload`: a JSON file with several topics, each published by every client at a pace of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::config::StreamSpec;
use super::payload::{Payload, PayloadTemplate};
use super::topic::TopicTemplate;

/// A text that no payload has, where the time will be.
const TIME_MARK: &str = "\u{E000}time";
/// ... and where a rendered field will be.
const FIELD_MARK: &str = "\u{E000}field";
/// Most topics of a client.
const TOPICS_MAX: usize = 4096;

/// Reads the file.
pub fn read(path: &Path) -> Result<Vec<StreamSpec>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("--topics-payload {}: {error}", path.display()))?;
    parse(&text).map_err(|reason| format!("--topics-payload {}: {reason}", path.display()))
}

/// Reads the text of such a file.
pub fn parse(text: &str) -> Result<Vec<StreamSpec>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let topics =
        file.get("topics").and_then(Value::as_array).ok_or("there is no list \"topics\"")?;
    if topics.is_empty() || topics.len() > TOPICS_MAX {
        return Err(format!("\"topics\" has 1 to {TOPICS_MAX} entries, not {}", topics.len()));
    }
    topics
        .iter()
        .enumerate()
        .map(|(index, topic)| {
            stream(topic).map_err(|reason| format!("topic {}: {reason}", index + 1))
        })
        .collect()
}

fn stream(topic: &Value) -> Result<StreamSpec, String> {
    let name = topic.get("name").and_then(Value::as_str).ok_or("it has no \"name\"")?;
    let template = TopicTemplate::parse(name)
        .map_err(|variable| format!("{:?} is no variable", variable.0))?;
    let interval_ms = match topic.get("interval_ms") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
        None => None,
    };
    let interval_ms: u64 =
        interval_ms.ok_or("\"interval_ms\" is to be a number of milliseconds")?;
    let qos = match topic.get("QoS").map_or(Some(0), Value::as_u64) {
        Some(qos @ 0..=2) => u8::try_from(qos).expect("at most 2"),
        _ => return Err("\"QoS\" is 0, 1 or 2".to_owned()),
    };
    match topic.get("payload_encoding").map_or(Some("json"), Value::as_str) {
        Some("json") => {}
        Some("eterm") => {
            return Err("\"payload_encoding\": \"eterm\" needs Erlang; use json".to_owned());
        }
        _ => return Err("\"payload_encoding\" is json".to_owned()),
    }
    if topic.get("stream").is_some_and(|stream| stream.as_u64() != Some(0)) {
        return Err("\"stream\" is 0: there is no QUIC here".to_owned());
    }
    Ok(StreamSpec {
        topic: template,
        interval: Duration::from_millis(interval_ms),
        qos,
        retain: topic.get("retain").and_then(Value::as_bool).unwrap_or(false),
        payload: payload(topic)?,
    })
}

fn payload(topic: &Value) -> Result<Payload, String> {
    let empty = Value::Object(Map::new());
    let mut payload = topic.get("payload").unwrap_or(&empty).clone();
    let unit_ns = match topic.get("inject_timestamp") {
        None | Some(Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(1_000_000),
        Some(Value::String(unit)) => Some(match unit.as_str() {
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            _ => return Err(format!("\"inject_timestamp\" is s, ms, us or ns, not {unit:?}")),
        }),
        Some(_) => return Err("\"inject_timestamp\" is a boolean or a unit".to_owned()),
    };
    let rendered =
        match topic.get("render").map(|field| field.as_str().ok_or("\"render\" names a field")) {
            None => None,
            Some(field) => {
                let field = field?;
                let value = payload
                    .get_mut(field)
                    .ok_or(format!("the payload has no field {field:?} to render"))?;
                let text = value
                    .as_str()
                    .ok_or(format!("the field {field:?} to render is no text"))?
                    .to_owned();
                *value = Value::String(FIELD_MARK.to_owned());
                // As it stands in JSON, without the quotes.
                let text = Value::String(text).to_string();
                Some(text[1..text.len() - 1].to_owned())
            }
        };
    if unit_ns.is_some() {
        let object = payload.as_object_mut().ok_or("a payload with a timestamp is an object")?;
        object.insert("timestamp".to_owned(), Value::String(TIME_MARK.to_owned()));
    }
    let text = payload.to_string();
    if unit_ns.is_none() && rendered.is_none() {
        return Ok(Payload::Fixed(text.into_bytes()));
    }
    let time_mark = format!("\"{TIME_MARK}\"");
    Ok(Payload::Template(PayloadTemplate::json(
        &text,
        unit_ns.map(|unit_ns| (time_mark.as_str(), unit_ns)),
        rendered.as_deref().map(|text| (FIELD_MARK, text)),
    )))
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::super::topic::Values;
    use super::*;

    fn render(spec: &StreamSpec) -> (String, String) {
        let (mut topic, mut payload) = (Vec::new(), Vec::new());
        let mut values = Values {
            username: b"ann",
            client_id: b"c-7",
            client_number: 7,
            message_number: 42,
            random: &mut Random::new(1),
        };
        spec.topic.write(&mut topic, &mut values);
        spec.payload.write(&mut payload, 1_700_000_000_123_456_789, &mut values);
        (String::from_utf8(topic).expect("text"), String::from_utf8(payload).expect("text"))
    }

    #[test]
    fn a_file_gives_topics() {
        let streams = parse(
            r#"{"topics":[
                {"name":"a/%i","inject_timestamp":true,"interval_ms":"1000","QoS":1,"retain":true,
                 "render":"foo","payload_encoding":"json","payload":{"foo":"x%i\"","n":5,"timestamp":"old"},
                 "stream":0,"stream_priority":3},
                {"name":"b","interval_ms":20,"payload":{"k":[1,2]}}]}"#,
        )
        .expect("valid");
        assert_eq!(streams.len(), 2);
        let (topic, payload) = render(&streams[0]);
        assert_eq!(topic, "a/7");
        let payload: Value = serde_json::from_str(&payload).expect("JSON");
        assert_eq!(payload["foo"], "x7\"");
        assert_eq!(payload["n"], 5);
        assert_eq!(payload["timestamp"], 1_700_000_000_123u64);
        assert_eq!((streams[0].qos, streams[0].retain), (1, true));
        assert_eq!(streams[0].interval, Duration::from_secs(1));
        assert_eq!(render(&streams[1]), ("b".to_owned(), r#"{"k":[1,2]}"#.to_owned()));
        assert_eq!((streams[1].qos, streams[1].retain), (0, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("{", "EOF"),
            ("{}", "no list \"topics\""),
            (r#"{"topics":[]}"#, "1 to 4096"),
            (r#"{"topics":[{}]}"#, "topic 1: it has no \"name\""),
            (r#"{"topics":[{"name":"a"}]}"#, "interval_ms"),
            (r#"{"topics":[{"name":"a","interval_ms":"x"}]}"#, "interval_ms"),
            (r#"{"topics":[{"name":"a","interval_ms":"1","QoS":3}]}"#, "QoS"),
            (r#"{"topics":[{"name":"a","interval_ms":"1","payload_encoding":"eterm"}]}"#, "Erlang"),
            (r#"{"topics":[{"name":"a","interval_ms":"1","stream":2}]}"#, "QUIC"),
            (
                r#"{"topics":[{"name":"a","interval_ms":"1","render":"f","payload":{}}]}"#,
                "no field",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
