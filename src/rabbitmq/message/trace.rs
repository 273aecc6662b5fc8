//! Owns the trace ids that publishers put into headers: W3C Trace Context (`traceparent`), or Zipkin's B3 (`b3`, `X-B3-TraceId`), which
//! older versions of Spring write. Pure. Must not know what is done with them.

/// The trace id in lower-case hexadecimal, if one of the headers has a valid one. B3 may have 16 digits instead of 32.
pub(super) fn trace_id(header: impl Fn(&str) -> Option<String>) -> Option<String> {
    let w3c = header("traceparent").and_then(|value| w3c_trace_id(&value).map(str::to_owned));
    w3c.or_else(|| header("b3").and_then(|value| b3_trace_id(value.split('-').next().unwrap_or_default())))
        .or_else(|| header("X-B3-TraceId").and_then(|value| b3_trace_id(&value)))
}

/// Trace Context, section 3.2: `version-traceid-parentid-flags`, and perhaps more in later versions than 00.
fn w3c_trace_id(value: &str) -> Option<&str> {
    let mut parts = value.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_first = version == "00";
    let is_valid = is_id(version, 2)
        && version != "ff"
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_id(flags, 2)
        && !(is_first && parts.next().is_some());
    (is_valid && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

fn b3_trace_id(value: &str) -> Option<String> {
    let value = value.trim().to_ascii_lowercase();
    ((is_id(&value, 32) || is_id(&value, 16)) && !is_zero(&value)).then_some(value)
}

fn is_id(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_trace_id_comes_from_any_of_the_usual_headers() {
        let of = |name: &str, value: &str| trace_id(|wanted| (wanted == name).then(|| value.to_owned()));
        let w3c = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(of("traceparent", &w3c).as_deref(), Some(TRACE));
        assert_eq!(of("traceparent", &format!("01-{TRACE}-00f067aa0ba902b7-01-more")).as_deref(), Some(TRACE));
        assert_eq!(of("b3", &format!("{TRACE}-00f067aa0ba902b7-1")).as_deref(), Some(TRACE));
        assert_eq!(of("b3", "A3CE929D0E0E4736-00f067aa0ba902b7").as_deref(), Some("a3ce929d0e0e4736"));
        assert_eq!(of("X-B3-TraceId", TRACE).as_deref(), Some(TRACE));
        for invalid in [
            format!("{w3c}-more"),
            w3c.replace("00-4", "ff-4"),
            w3c.replace('4', "G"),
            w3c.replace(TRACE, &"0".repeat(32)),
            w3c.replace("00f067aa0ba902b7", "0000000000000000"),
            w3c.to_uppercase(),
            format!("00-{TRACE}"),
            String::new(),
            "00-é".to_owned(),
        ] {
            assert_eq!(of("traceparent", &invalid), None, "{invalid}");
        }
        assert_eq!(of("b3", "0"), None, "not sampled, without an id");
    }
}
