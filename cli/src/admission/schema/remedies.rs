//! Replacements for values of the wrong type: most such values are the short form of another tool.

use serde_json::{Map, Value};

use super::quoted;

/// The length of the longest text, in characters, that a remedy repeats.
const REPEATED: usize = 60;
/// Units of time by name, in milliseconds.
const UNITS: [(&str, u64); 7] =
    [("ms", 1), ("s", 1000), ("sec", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of amounts by name. A percentage counts as its number.
const FACTORS: [(&str, u64); 8] = [
    ("%", 1),
    ("k", 1000),
    ("K", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
];
/// Values of enums that turn something off.
const OFF: [&str; 2] = ["Disabled", "None"];

/// The replacement for the value of `name`, which is not of the type `wanted`. `port` is the sibling field `port`,
/// which belongs into the value.
pub(super) fn instead(schema: &Value, name: &str, value: &Value, port: Option<&Value>) -> Option<String> {
    match (schema["type"].as_str()?, value) {
        ("object", Value::String(_) | Value::Number(_)) if requires(schema, "agent") => {
            Some(format!("write {name}: {{agent: ..., host: ..., port: ...}}"))
        }
        (wanted, Value::String(text)) if is_quoted(wanted, text) => Some("remove the quotes".to_owned()),
        ("integer", Value::String(text)) => time(name, text).or_else(|| amount(name, text)),
        ("string", Value::Bool(false)) => Some(format!("write {}", off(&variants(schema)?)?)),
        ("string", Value::Number(number)) if schema["enum"].is_null() => Some(format!("write '{number}'")),
        ("array", Value::Object(_)) => Some("begin each item of the list with '- '".to_owned()),
        ("array", Value::String(text)) => Some(format!("write {name}: [{}]", plain(text)?)),
        ("object", Value::Number(port)) if requires(schema, "port") => match key(schema) {
            None => Some(format!("write {name}: {{port: {port}}}")),
            Some(key) => Some(format!("write {name}: {{{key}: ..., port: {port}}}")),
        },
        ("object", Value::Bool(false)) => OFF.into_iter().find_map(|off| short(schema, name, off)),
        ("object", Value::String(text)) => object(schema, name, text, port),
        _ => None,
    }
}

/// The values of an enum.
pub(super) fn variants(schema: &Value) -> Option<Vec<&str>> {
    schema["enum"].as_array().map(|values| values.iter().filter_map(Value::as_str).collect())
}

/// The value of an enum that `off` stands for.
fn off(names: &[&str]) -> Option<&'static str> {
    OFF.into_iter().find(|off| names.contains(off))
}

/// Whether a text would have the wanted type without its quotes.
fn is_quoted(wanted: &str, text: &str) -> bool {
    match wanted {
        "integer" => text.parse::<i64>().is_ok(),
        "boolean" => matches!(text, "true" | "false"),
        _ => false,
    }
}

/// The field whose value is a text although the sibling field `port` belongs into an object there.
pub(super) fn split<'a>(fields: &'a Map<String, Value>, known: Option<&Map<String, Value>>) -> Option<&'a str> {
    let known = known.filter(|known| !known.contains_key("port"))?;
    fields.get("port")?.as_u64()?;
    let is_split = |(name, value): &(&String, &Value)| {
        let schema = known.get(name.as_str()).filter(|schema| schema["type"] == "object");
        value.is_string() && schema.is_some_and(|schema| key(schema).is_some() && requires(schema, "port"))
    };
    fields.iter().find(is_split).map(|(name, _)| name.as_str())
}

fn object(schema: &Value, name: &str, text: &str, port: Option<&Value>) -> Option<String> {
    if let Some(short) = short(schema, name, text) {
        return Some(short);
    }
    let key = key(schema)?;
    if !requires(schema, "port") {
        return Some(format!("write {name}: {{{key}: {}}}", plain(text)?));
    }
    let (host, port) = match (port, host_and_port(text)) {
        (Some(port), _) => (text, port.to_string()),
        (None, Some((host, port))) => (host, port.to_string()),
        (None, None) => (text, "...".to_owned()),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(format!("write {name}: {{{key}: {}, port: {port}}}", plain(host)?))
}

/// The object with its field, or each of its fields, whose enum has this value.
fn short(schema: &Value, name: &str, value: &str) -> Option<String> {
    let has_value = |below: &Value| variants(below).is_some_and(|names| names.contains(&value));
    let fields = schema["properties"].as_object()?.iter().filter(|(_, below)| has_value(below));
    let forms: Vec<String> = fields.map(|(field, _)| format!("{{{field}: {value}}}")).collect();
    (!forms.is_empty()).then(|| format!("write {name}: {}", forms.join(" or ")))
}

/// The required field that a text alone stands for.
fn key(schema: &Value) -> Option<&'static str> {
    ["host", "name"].into_iter().find(|field| requires(schema, field))
}

fn requires(schema: &Value, field: &str) -> bool {
    schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == field))
}

/// Splits `HOST:PORT` or `[HOST]:PORT`.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty() && (host.ends_with(']') || !host.contains(':'))).then_some((host, port))
}

/// The replacement for a range of ports such as `7000-7010`, if the field is the port of a listener or of a range.
pub(super) fn range(path: &str, text: &str) -> Option<String> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
    let has_range = path.ends_with("].port") && !path.contains(".backends[");
    has_range.then(|| format!("write port: {first} and endPort: {last}"))
}

/// The value of an enum for which a word of other tools stands.
pub(super) fn variant(names: &[&str], text: &str) -> Option<&'static str> {
    let meant = match text.to_ascii_lowercase().as_str() {
        "0.0.0.0" | "::" | "[::]" | "*" | "any" => "All",
        "127.0.0.1" | "::1" | "[::1]" | "localhost" => "Loopback",
        "off" | "false" | "no" => return off(names),
        _ => return None,
    };
    names.contains(&meant).then_some(meant)
}

/// Explains why a text does not match the pattern of its field, if the text alone does not show the cause.
pub(super) fn text(must: &str, text: &str) -> Option<&'static str> {
    if must.contains("with the escapes") && text.contains(['\r', '\n', '\t', '\0']) {
        return Some(r"in double quotes, YAML turns \r and \n into the bytes; use single quotes");
    }
    (text.trim() != text && must.contains("have only")).then_some("remove the space")
}

/// Converts an amount such as `10Mi` or `50%` to a number. Times have units of their own.
fn amount(name: &str, text: &str) -> Option<String> {
    if name.ends_with("Seconds") || name.ends_with("Millis") {
        return None;
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = FACTORS.iter().find(|(name, _)| *name == unit.trim())?;
    let number = number.parse::<u64>().ok()?.checked_mul(*factor)?;
    Some(format!("write {name}: {number}"))
}

/// Converts a time such as `1h` to the number of seconds, or of milliseconds, that a field takes.
fn time(name: &str, text: &str) -> Option<String> {
    let divisor = match (name.ends_with("Seconds"), name.ends_with("Millis")) {
        (true, _) => 1000,
        (_, true) => 1,
        _ => return None,
    };
    let millis = millis(text)?;
    if millis.is_multiple_of(divisor) {
        return Some(format!("write {name}: {}", millis / divisor));
    }
    Some("write a whole number of seconds".to_owned())
}

/// Converts a time such as `1h30m` to milliseconds.
fn millis(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len()));
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*millis)?)?;
        rest = after;
    }
    Some(sum)
}

/// Formats a text as YAML, in quotes where they are needed; `None` if the text is too long to repeat, or has quotes.
fn plain(text: &str) -> Option<String> {
    if text.is_empty() || text.chars().count() > REPEATED || text.contains('\'') {
        return None;
    }
    let is_plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_'))
        && text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        || text.parse::<std::net::Ipv4Addr>().is_ok();
    Some(if is_plain { text.to_owned() } else { quoted(text) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(required: &[&str]) -> Value {
        json!({"type": "object", "required": required, "properties": {}})
    }

    #[test]
    fn a_text_that_stands_for_an_object_is_written_as_one() {
        let (address, service) = (schema(&["host", "port"]), schema(&["name", "port"]));
        let text = |schema: &Value, name: &str, value: Value| instead(schema, name, &value, None).expect("a remedy");
        assert_eq!(text(&address, "address", json!("db:5432")), "write address: {host: db, port: 5432}");
        assert_eq!(text(&address, "address", json!("[::1]:80")), "write address: {host: '::1', port: 80}");
        assert_eq!(text(&address, "address", json!("10.0.0.1")), "write address: {host: 10.0.0.1, port: ...}");
        assert_eq!(text(&service, "service", json!("pg:5432")), "write service: {name: pg, port: 5432}");
        assert_eq!(text(&schema(&["port"]), "local", json!(8080)), "write local: {port: 8080}");
        assert_eq!(text(&schema(&["name"]), "gateway", json!("edge")), "write gateway: {name: edge}");
        assert_eq!(instead(&address, "address", &json!("x".repeat(300)), None), None);
    }

    #[test]
    fn a_time_with_a_unit_is_a_number_of_the_unit_of_the_field() {
        let integer = json!({"type": "integer"});
        let number = |name: &str, text: &str| instead(&integer, name, &json!(text), None);
        assert_eq!(number("idleSeconds", "1h").as_deref(), Some("write idleSeconds: 3600"));
        assert_eq!(number("intervalSeconds", "5 s").as_deref(), Some("write intervalSeconds: 5"));
        assert_eq!(number("idleSeconds", "1h30m").as_deref(), Some("write idleSeconds: 5400"));
        assert_eq!(number("idleSeconds", "500ms").as_deref(), Some("write a whole number of seconds"));
        assert_eq!(number("bytesPerSecond", "10Mi").as_deref(), Some("write bytesPerSecond: 10485760"));
        assert_eq!(number("bytesPerSecond", "100M").as_deref(), Some("write bytesPerSecond: 100000000"));
        assert_eq!(number("maxConnections", "3k").as_deref(), Some("write maxConnections: 3000"));
        assert_eq!(number("weight", "50%").as_deref(), Some("write weight: 50"));
        assert_eq!(number("maxBackoffMillis", "2s").as_deref(), Some("write maxBackoffMillis: 2000"));
        for (name, text) in [("idleSeconds", ""), ("idleSeconds", "soon"), ("port", "5s"), ("idleSeconds", "1é")] {
            assert_eq!(number(name, text), None, "{name}: {text}");
        }
        assert_eq!(number("idleSeconds", "99999999999999999999h"), None);
        assert_eq!(number("idleSeconds", "18446744073709551615h"), None);
    }
}
