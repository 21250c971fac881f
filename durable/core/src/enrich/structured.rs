//! Structured data of RFC 5424.

use super::Labels;

/// The message with one more element at the end of its structured data. `None`: the message is not RFC 5424, or has an
/// element of this name, which may not come twice.
pub(super) fn add(id: &str, labels: &Labels<'_>, payload: &[u8]) -> Option<Vec<u8>> {
    let data = payload.get(header(payload)?..)?;
    let nil = data.strip_prefix(b"-");
    let behind = nil.or_else(|| elements(data, id.as_bytes()));
    let behind = behind.filter(|behind| behind.is_empty() || behind.starts_with(b" "))?;
    // The NILVALUE `-` gives way to the element.
    let kept = if nil.is_some() { data } else { behind };
    let mut enriched = payload.get(..payload.len() - kept.len())?.to_vec();
    enriched.extend_from_slice(element(id, labels).as_bytes());
    enriched.extend_from_slice(behind);
    Some(enriched)
}

/// The length of the header with the space behind it: priority and version, then five words.
fn header(payload: &[u8]) -> Option<usize> {
    let rest = payload.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let (priority, rest) = rest.split_at_checked(end)?;
    let digits = !priority.is_empty() && priority.iter().all(u8::is_ascii_digit);
    let priority = priority.iter().fold(0_u32, |number, digit| number * 10 + u32::from(digit.wrapping_sub(b'0')));
    let mut rest = rest.strip_prefix(b">1 ").filter(|_| digits && priority <= 191)?;
    for _ in 0..5 {
        let end = rest.iter().position(|byte| !byte.is_ascii_graphic()).filter(|end| *end > 0)?;
        rest = rest.get(end..)?.strip_prefix(b" ")?;
    }
    Some(payload.len() - rest.len())
}

/// The rest behind the elements at the start of `data`, none of which may have the name `id`.
fn elements<'a>(data: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    let mut rest = data.strip_prefix(b"[")?;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b' ' | b']' | b'"' | b'=')).filter(|end| *end > 0)?;
        let (name, behind) = rest.split_at_checked(end)?;
        if name == id || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        rest = behind;
        while let Some(parameter) = rest.strip_prefix(b" ") {
            rest = value(parameter)?;
        }
        rest = rest.strip_prefix(b"]")?;
        let Some(next) = rest.strip_prefix(b"[") else {
            return Some(rest);
        };
        rest = next;
    }
}

/// The rest behind a parameter: a name, an equals sign, and a quoted value.
fn value(parameter: &[u8]) -> Option<&[u8]> {
    let end = parameter.iter().position(|byte| *byte == b'=').filter(|end| *end > 0)?;
    let (name, rest) = parameter.split_at_checked(end)?;
    if !name.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b']' | b'"')) {
        return None;
    }
    let quoted = rest.strip_prefix(b"=\"")?;
    let mut escaped = false;
    for (at, byte) in quoted.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return quoted.get(at + 1..),
            b']' => return None,
            _ => {}
        }
    }
    None
}

fn element(id: &str, labels: &Labels<'_>) -> String {
    let Labels { received_at, client, forward, pod } = *labels;
    let mut element = format!("[{id}");
    for (name, value) in [("receivedAt", received_at), ("client", client), ("forward", forward), ("pod", pod)] {
        element.push_str(&format!(" {name}=\""));
        for char in value.chars() {
            if matches!(char, '"' | '\\' | ']') {
                element.push('\\');
            }
            element.push(char);
        }
        element.push('"');
    }
    element.push(']');
    element
}
