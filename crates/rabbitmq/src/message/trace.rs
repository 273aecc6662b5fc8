//! Owns the trace contexts that publishers put into headers: W3C Trace Context (`traceparent`, `tracestate`), or Zipkin's B3 (`b3`, or
//! `X-B3-TraceId` and others), which older versions of Spring write. Pure.

/// The span in which a message was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Its trace; not 0.
    pub trace_id: u128,
    /// The span; 0 if the headers do not name it.
    pub span_id: u64,
    /// Whether its trace is recorded.
    pub is_sampled: bool,
    /// `tracestate`, as it is.
    pub state: Option<String>,
}

impl TraceContext {
    /// From the first of the headers that is valid. Names have no case (Trace Context, section 3.2.1), which `header` knows.
    pub(super) fn read(header: impl Fn(&str) -> Option<String>) -> Option<TraceContext> {
        if let Some(context) = header("traceparent").and_then(|value| TraceContext::from_traceparent(&value)) {
            // Vendors may cut it off beyond 512 bytes (Trace Context, section 3.3.1.5).
            let state = header("tracestate").filter(|state| state.len() <= 512);
            return Some(TraceContext { state, ..context });
        }
        header("b3").and_then(|value| TraceContext::from_b3(&value)).or_else(|| {
            let text = |name| header(name).unwrap_or_default();
            let is_debug = text("X-B3-Flags") == "1";
            TraceContext::from_parts(
                &text("X-B3-TraceId"),
                &text("X-B3-SpanId"),
                is_debug || is_b3_sampled(&text("X-B3-Sampled")),
            )
        })
    }

    /// Trace Context, section 3.2: `version-traceid-parentid-flags`, and perhaps more in later versions than 00.
    fn from_traceparent(value: &str) -> Option<TraceContext> {
        let mut parts = value.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let has_more = parts.next().is_some();
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace, 32)
            && is_hex(span, 16)
            && is_hex(flags, 2)
            && !(version == "00" && has_more);
        let is_sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        let context = is_valid.then(|| TraceContext::from_parts(trace, span, is_sampled))??;
        (context.span_id != 0).then_some(context)
    }

    /// `traceid-spanid-sampled`, and perhaps the parent of the span.
    fn from_b3(value: &str) -> Option<TraceContext> {
        let mut parts = value.split('-');
        let mut next = || parts.next().unwrap_or_default();
        let (trace, span, sampled) = (next(), next(), next());
        TraceContext::from_parts(trace, span, is_b3_sampled(sampled))
    }

    /// B3 may have 16 digits instead of 32.
    fn from_parts(trace: &str, span: &str, is_sampled: bool) -> Option<TraceContext> {
        let (trace, span) = (trace.trim().to_ascii_lowercase(), span.trim().to_ascii_lowercase());
        if !is_hex(&trace, 32) && !is_hex(&trace, 16) {
            return None;
        }
        let trace_id = u128::from_str_radix(&trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = if is_hex(&span, 16) { u64::from_str_radix(&span, 16).unwrap_or(0) } else { 0 };
        Some(TraceContext { trace_id, span_id, is_sampled, state: None })
    }

    /// The trace id in 32 hexadecimal digits.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// Sampled, or debug; older versions wrote `true`.
fn is_b3_sampled(value: &str) -> bool {
    ["1", "d", "true"].iter().any(|sampled| value.trim().eq_ignore_ascii_case(sampled))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(headers: &[(&str, &str)]) -> Option<(String, u64, bool)> {
        let header =
            |name: &str| headers.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned());
        TraceContext::read(header).map(|context| (context.trace_id_text(), context.span_id, context.is_sampled))
    }

    #[test]
    fn a_trace_context_comes_from_any_of_the_usual_headers() {
        let expected = |span, is_sampled| Some((TRACE.to_owned(), span, is_sampled));
        let span = 0x00f0_67aa_0ba9_02b7;
        let w3c = |version: &str, end: &str| format!("{version}-{TRACE}-{SPAN}-{end}");
        assert_eq!(read(&[("traceparent", &w3c("00", "01"))]), expected(span, true));
        assert_eq!(read(&[("traceparent", &w3c("00", "02"))]), expected(span, false));
        assert_eq!(read(&[("traceparent", &w3c("01", "03-more"))]), expected(span, true));
        assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}-1"))]), expected(span, true));
        assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}-0-{SPAN}"))]), expected(span, false));
        assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}-d"))]), expected(span, true));
        assert_eq!(read(&[("b3", &format!("{TRACE}-{SPAN}"))]), expected(span, false), "no decision");
        let short = "A3CE929D0E0E4736";
        let padded = format!("{:032x}", 0xa3ce_929d_0e0e_4736_u128);
        assert_eq!(read(&[("b3", &format!("{short}-{SPAN}-1"))]), Some((padded, span, true)));
        let parts = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN), ("X-B3-Sampled", "true")];
        assert_eq!(read(&parts), expected(span, true));
        assert_eq!(read(&[parts[0], parts[1], ("X-B3-Flags", "1")]), expected(span, true));
        assert_eq!(read(&parts[..1]), expected(0, false));
    }

    #[test]
    fn an_invalid_trace_context_is_none() {
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        for invalid in [
            format!("{w3c}-more"),
            w3c.replace("00-4", "ff-4"),
            w3c.replace('4', "G"),
            w3c.replace(TRACE, &"0".repeat(32)),
            w3c.replace(SPAN, &"0".repeat(16)),
            w3c.to_uppercase(),
            format!("00-{TRACE}"),
            String::new(),
            "00-é".to_owned(),
        ] {
            assert_eq!(read(&[("traceparent", &invalid)]), None, "{invalid}");
        }
        assert_eq!(read(&[("b3", "0")]), None, "not sampled, without an id");
        let fallback = [("traceparent", "no"), ("b3", &format!("{TRACE}-{SPAN}-1"))];
        assert_eq!(read(&fallback).unwrap().0, TRACE);
    }

    #[test]
    fn the_trace_state_is_kept() {
        let traceparent = format!("00-{TRACE}-{SPAN}-01");
        let context = TraceContext::read(|name| match name {
            "traceparent" => Some(traceparent.clone()),
            "tracestate" => Some("vendor=1".to_owned()),
            _ => None,
        });
        assert_eq!(context.unwrap().state.as_deref(), Some("vendor=1"));
    }
}
