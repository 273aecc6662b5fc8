//! Owns how a body is shown to a person: control characters are escaped, and the fault is marked.

use std::fmt::Write as _;

/// Most lines in an excerpt.
const MAX_LINES: usize = 40;
/// Most characters of a line in an excerpt.
const MAX_COLUMNS: usize = 110;
/// Deepest indentation of JSON; deeper values are indented as much.
const MAX_INDENT: usize = 20;

/// Makes a text safe for a terminal, in JSON's way (`\u001b`), so that JSON stays the same JSON: control characters, those that
/// reorder text or are invisible become escapes. Ends of lines and tabs stay.
pub fn terminal_safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && !matches!(c, '\n' | '\t') {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for one line or one cell of a table.
pub fn escape(text: &str) -> String {
    terminal_safe(&text.replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r"))
}

/// Control characters (C0, C1), bidirectional formatting (Unicode UAX 9), invisible characters and tags.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The body as numbered lines, with a caret under `fault` (a byte offset in the body). Without `all`, an excerpt around it.
pub fn render_text(body: &str, fault: Option<usize>, all: bool) -> String {
    let fault = fault.map(|at| body.floor_char_boundary(at.min(body.len())));
    let mut start = 0;
    let mut lines = Vec::new();
    for line in body.split_inclusive('\n') {
        let offset = fault.filter(|at| (start..start + line.len()).contains(at)).map(|at| at - start);
        lines.push((line.trim_end_matches(['\n', '\r']), offset));
        start += line.len();
    }
    if fault.is_some_and(|at| at == body.len())
        && let Some((line, offset)) = lines.last_mut()
    {
        *offset = Some(line.len());
    }
    let marked = lines.iter().position(|(_, offset)| offset.is_some()).unwrap_or(0);
    let from = if all { 0 } else { marked.saturating_sub(MAX_LINES / 2) };
    let to = if all { lines.len() } else { (from + MAX_LINES).min(lines.len()) };
    let mut out = String::new();
    if from > 0 {
        let _ = writeln!(out, "      … {from} lines above");
    }
    for (number, (line, offset)) in lines.iter().enumerate().take(to).skip(from) {
        push_line(&mut out, number + 1, line, *offset, all);
    }
    if to < lines.len() {
        let _ = writeln!(out, "      … {} lines below", lines.len() - to);
    }
    out
}

/// Adds a line with its number, and a caret under `fault` (a byte offset in the line). Without `all`, an excerpt around it.
fn push_line(out: &mut String, number: usize, line: &str, fault: Option<usize>, all: bool) {
    let at = line.floor_char_boundary(fault.unwrap_or(0));
    let (before, behind) = line.split_at_checked(at).unwrap_or((line, ""));
    let before: Vec<char> = before.chars().collect();
    let cut = if all { 0 } else { before.len().saturating_sub(MAX_COLUMNS / 2) };
    let left: String = before.iter().skip(cut).collect();
    let room = if all { usize::MAX } else { MAX_COLUMNS.saturating_sub(before.len() - cut) };
    let right: String = behind.chars().take(room).collect();
    let more = if right.len() < behind.len() { "…" } else { "" };
    let left = format!("{}{}", if cut > 0 { "…" } else { "" }, escape(&left));
    let _ = writeln!(out, "{number:>5} {left}{}{more}", escape(&right));
    if fault.is_some() {
        let _ = writeln!(out, "      {}^", " ".repeat(left.chars().count()));
    }
}

/// The same JSON text with one value a line. Only white space changes: order, repeated keys and the digits of numbers stay.
/// A text that is not JSON may look odd.
pub fn indent_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut before = ' ';
    for c in text.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        let is_empty = closes && matches!(before, '{' | '[');
        depth -= usize::from(closes && depth > 0);
        if !is_empty && (closes || matches!(before, '{' | '[' | ',')) {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
        }
        out.push(c);
        depth += usize::from(matches!(c, '{' | '['));
        if c == ':' {
            out.push(' ');
        }
        in_string = c == '"';
        before = c;
    }
    out
}

/// Bytes in hexadecimal and ASCII, 16 a line, with a mark under `fault` (an offset). At most `max` bytes, around it.
pub fn render_hex(bytes: &[u8], max: usize, fault: Option<usize>) -> String {
    let fault = fault.filter(|at| *at < bytes.len());
    let start = fault.map_or(0, |at| at.saturating_sub(max / 2)) / 16 * 16;
    let mut out = String::new();
    if start > 0 {
        let _ = writeln!(out, "… {start} bytes before");
    }
    let shown = bytes.get(start..).unwrap_or_default();
    for (line, at) in shown.chunks(16).zip((start..).step_by(16)).take(max.div_ceil(16)) {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String =
            line.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        let _ = writeln!(out, "{at:08x}  {:<47}  |{ascii}|", pairs.join(" "));
        if let Some(column) = fault.and_then(|fault| fault.checked_sub(at)).filter(|column| *column < 16) {
            let _ = writeln!(out, "          {}^^", " ".repeat(column * 3));
        }
    }
    if shown.len() > max {
        let _ = writeln!(out, "… {} bytes more", shown.len() - max);
    }
    out
}

/// The offset of a fault in the body: the position that the detail names, or else the start of the value of the field.
pub fn fault_offset(body: &str, detail: &str, field: Option<&str>) -> Option<usize> {
    let number = |after: &str| -> Option<usize> {
        let (_, rest) = detail.rsplit_once(after)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    if let (Some(line), Some(column)) = (number("line "), number("column ")) {
        let start: usize = body.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        return Some(start.saturating_add(column.saturating_sub(1)).min(body.len()));
    }
    number("from byte ").or_else(|| value_offset(body, field?))
}

/// The offset of the value of a key of the root object; of the last one if there are several.
fn value_offset(body: &str, field: &str) -> Option<usize> {
    let key = serde_json::to_string(field).ok()?;
    let (mut depth, mut found, mut at) = (0usize, None, 0);
    let bytes = body.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_string(bytes, at);
                let behind = body.get(end..).unwrap_or_default();
                let value = behind.trim_start().strip_prefix(':').map(str::trim_start);
                if let Some(value) = value.filter(|_| depth == 1 && body.get(at..end) == Some(key.as_str())) {
                    found = Some(body.len() - value.len());
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The offset behind the string that starts at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'"' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("a\u{1b}[2J\u{9b}31m\u{202e}b\r\n\tü"), "a\\u001b[2J\\u009b31m\\u202eb\\r\\n\\tü");
        assert_eq!(
            terminal_safe("{\n\t\"a\":\"\u{9b}\u{61c}\u{e0041}\r\u{7f}ü\"}"),
            "{\n\t\"a\":\"\\u009b\\u061c\\udb40\\udc41\\u000d\\u007fü\"}"
        );
    }

    #[test]
    fn the_fault_is_marked() {
        let body = "{\n  \"user_id\": 1,\n  \"a\": tru\n}";
        let at = fault_offset(body, "expected ident at line 3 column 10", None);
        insta::assert_snapshot!(render_text(body, at, false), @r#"
            1 {
            2   "user_id": 1,
            3   "a": tru
                       ^
            4 }
        "#);
        let body = r#"{"x":{"user_id":1},"user_id": "abc","s":"\"user_id\":"}"#;
        let at = fault_offset(body, "user_id expects a Number, found a string that is not a number", Some("user_id"));
        insta::assert_snapshot!(render_text(body, at, false), @r#"
            1 {"x":{"user_id":1},"user_id": "abc","s":"\"user_id\":"}
                                            ^
        "#);
        assert_eq!(fault_offset("abc", "not UTF-8 from byte 2 on", None), Some(2));
        assert_eq!(fault_offset("{}", "the body is empty", Some("a")), None);
        insta::assert_snapshot!(render_text("{\"a\":", Some(5), false), @r#"
            1 {"a":
                   ^
        "#);
    }

    #[test]
    fn long_bodies_are_shown_around_the_fault() {
        let long = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = render_text(&long, Some(500), false);
        let (line, mark) = shown.split_once('\n').unwrap();
        assert!(line.chars().count() < 130 && line.contains("aXb"), "{line}");
        assert_eq!(line.chars().position(|c| c == 'X'), mark.chars().position(|c| c == '^'));
        let lines = "x\n".repeat(1000);
        assert!(render_text(&lines, Some(1000), false).lines().count() < 50);
        assert_eq!(render_text(&lines, Some(1000), true).lines().count(), 1001);
        insta::assert_snapshot!(render_hex(b"\x00\x1b[0mABCDEFGHIJKLMNOP", 16, None), @r"
        00000000  00 1b 5b 30 6d 41 42 43 44 45 46 47 48 49 4a 4b  |..[0mABCDEFGHIJK|
        … 5 bytes more
        ");
        insta::assert_snapshot!(render_hex(&[b'a'; 100], 32, Some(50)), @r"
        … 32 bytes before
        00000020  61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61  |aaaaaaaaaaaaaaaa|
        00000030  61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61  |aaaaaaaaaaaaaaaa|
                        ^^
        … 36 bytes more
        ");
    }

    #[test]
    fn json_is_indented_and_not_changed() {
        let text = r#"{ "b":1.10,"a":[],"b":{"x\",{":12345678901234567890},"e":[1, {}] }"#;
        insta::assert_snapshot!(indent_json(text), @r#"
        {
          "b": 1.10,
          "a": [],
          "b": {
            "x\",{": 12345678901234567890
          },
          "e": [
            1,
            {}
          ]
        }
        "#);
    }

    proptest! {
        #[test]
        fn indented_json_is_the_same_json(numbers in proptest::collection::vec(any::<i64>(), 0..5), text: String) {
            let value = serde_json::json!({ "n": numbers, "t": text, &text: { "o": {} } });
            let indented = indent_json(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&indented).unwrap(), value);
        }

        #[test]
        fn any_text_can_be_shown(body: String, at in 0usize..200, detail in ".{0,60}|line [0-9]{1,3} column [0-9]{1,3}", all: bool) {
            let fault = fault_offset(&body, &detail, Some("a")).or(Some(at));
            for shown in [render_text(&body, fault, all), render_text(&body, None, all)] {
                prop_assert!(!shown.contains(|c: char| c != '\n' && is_unsafe(c)));
            }
        }
    }
}
