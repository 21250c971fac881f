//! The value of a plain scalar by YAML 1.1, as kubectl reads it: `on` is a boolean, `010` is 8.

use serde_json::{Number, Value};

/// The value of a scalar without quotes or tag.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Value> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    integer(&text.replace('_', "")).or_else(|| float(text))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some(lead) if lead.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        let value = i64::try_from(-i128::from(magnitude)).ok()?;
        return Some(Value::from(value));
    }
    Some(Value::from(magnitude))
}

fn float(text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mantissa = unsigned.split(['e', 'E']).next()?;
    let is_well_formed = mantissa.bytes().any(|byte| byte.is_ascii_digit())
        && mantissa.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && unsigned.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let value: f64 = if is_well_formed { text.parse().ok()? } else { return None };
    // kubectl sends JSON to the API server, which writes a whole float as an integer.
    #[allow(clippy::cast_possible_truncation, reason = "whole and small, as checked")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// The text of a mapping key. JSON keys are strings, whatever type YAML gives them.
pub(super) fn key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_kubectl_makes_of_them() {
        for (text, value) in [
            ("on", json!(true)),
            ("y", json!(true)),
            ("No", json!(false)),
            ("010", json!(8)),
            ("0x10", json!(16)),
            ("0b11", json!(3)),
            ("0o17", json!(15)),
            ("1_000", json!(1000)),
            ("-12", json!(-12)),
            ("+7", json!(7)),
            ("08", json!(8)),
            ("1.5", json!(1.5)),
            ("1e3", json!(1000)),
            ("5432.0", json!(5432)),
            ("~", json!(null)),
            ("1.2.3", json!("1.2.3")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("2026-01-01", json!("2026-01-01")),
            ("-", json!("-")),
            (".", json!(".")),
            ("e3", json!("e3")),
            ("12a", json!("12a")),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }
}
