//! Owns `content_encoding`: which ones are read, and decompression under the byte limit.
//! Must not know JSON.

use std::borrow::Cow;
use std::io::Read;

use super::{Reason, Rejection};

/// Returns the bytes behind `content_encoding`, at most `max_bytes` of them.
///
/// None, empty, `identity` and `utf-8` pass the body on; `gzip` and `zstd` are decompressed; names are case-insensitive.
///
/// # Errors
/// `too_large` where the result would exceed `max_bytes`; `unsupported_encoding` for another name or a broken stream.
pub fn decompress<'a>(body: &'a [u8], encoding: Option<&str>, max_bytes: usize) -> Result<Cow<'a, [u8]>, Rejection> {
    let name = encoding.unwrap_or_default().trim();
    if name.is_empty() || name.eq_ignore_ascii_case("identity") || name.eq_ignore_ascii_case("utf-8") {
        return Ok(Cow::Borrowed(body));
    }
    if name.eq_ignore_ascii_case("gzip") {
        return bounded(flate2::read::MultiGzDecoder::new(body), max_bytes, "gzip").map(Cow::Owned);
    }
    if name.eq_ignore_ascii_case("zstd") {
        let decoder = zstd::stream::read::Decoder::new(body)
            .and_then(|mut decoder| {
                // A frame may ask for a window of its own choosing; 2^23 bytes is what every decoder must support
                // (RFC 8878, section 3.1.1.1.2), and it bounds what a hostile frame can make us allocate.
                decoder.window_log_max(23)?;
                Ok(decoder)
            })
            .map_err(|_| broken("zstd"))?;
        return bounded(decoder, max_bytes, "zstd").map(Cow::Owned);
    }
    Err(Rejection::new(Reason::UnsupportedEncoding, "content_encoding is none of: identity, utf-8, gzip, zstd"))
}

fn bounded(decoder: impl Read, max_bytes: usize, name: &'static str) -> Result<Vec<u8>, Rejection> {
    let mut out = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut out).map_err(|_| broken(name))?;
    if out.len() > max_bytes {
        return Err(Rejection::new(
            Reason::TooLarge,
            format!("more than {max_bytes} bytes after {name} decompression"),
        ));
    }
    Ok(out)
}

fn broken(name: &'static str) -> Rejection {
    Rejection::new(
        Reason::UnsupportedEncoding,
        format!("content_encoding says {name}, but the body is no valid {name} stream"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_names_pass_the_body_on() {
        for name in [None, Some(""), Some("identity"), Some("UTF-8"), Some(" utf-8 ")] {
            assert_eq!(decompress(b"{}", name, 10).unwrap().as_ref(), b"{}", "{name:?}");
        }
    }

    #[test]
    fn gzip_and_zstd_are_read_up_to_the_limit_and_no_further() {
        let bomb = vec![b' '; 1_000_000];
        for (name, packed) in [("gzip", gzip(&bomb)), ("zstd", zstd::encode_all(&bomb[..], 3).unwrap())] {
            assert_eq!(decompress(&packed, Some(name), 1_000_000).unwrap().len(), 1_000_000);
            assert_eq!(decompress(&packed, Some(name), 999_999).unwrap_err().reason, Reason::TooLarge);
        }
    }

    #[test]
    fn broken_streams_and_other_names_are_unsupported() {
        let mut cut = gzip(b"{\"a\":1}");
        cut.truncate(cut.len() - 4);
        for (name, body) in [("gzip", cut.as_slice()), ("zstd", b"{}"), ("gzip", b"{}"), ("br", b"{}")] {
            assert_eq!(decompress(body, Some(name), 100).unwrap_err().reason, Reason::UnsupportedEncoding, "{name}");
        }
    }
}
