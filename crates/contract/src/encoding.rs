//! Owns `content_encoding`: the supported names, and decompression within the limit.

use std::borrow::Cow;
use std::io::Read;

use super::{Reason, Rejection};

/// Names that say nothing about compression: character sets that are UTF-8 or part of it, and the `binary` with which
/// kombu labels a body of bytes.
const UNCOMPRESSED: [&str; 7] = ["", "identity", "utf-8", "utf8", "us-ascii", "ascii", "binary"];

/// What `content_encoding` may be, besides absent, for documents and messages.
pub const CONTENT_ENCODINGS: [&str; 6] = ["identity", "utf-8", "us-ascii", "binary", "gzip", "zstd"];

/// The decompressed body, at most `max_bytes` long. `gzip` (`x-gzip`) and `zstd` are decompressed; `identity` and the names
/// of UTF-8 change nothing. Names are case-insensitive, and several are separated by commas (RFC 9110, section 8.4) or
/// colons (Spring AMQP: `gzip:UTF-8`).
///
/// # Errors
/// `too_large` if the result exceeds `max_bytes`; `unsupported_encoding` for another name or an invalid stream.
pub fn decompress<'a>(body: &'a [u8], encoding: Option<&str>, max_bytes: usize) -> Result<Cow<'a, [u8]>, Rejection> {
    let names = encoding.unwrap_or_default().split([',', ':']).map(|name| name.trim().to_ascii_lowercase());
    let names: Vec<String> = names.filter(|name| !UNCOMPRESSED.contains(&name.as_str())).collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(Cow::Borrowed(body)),
        ["gzip" | "x-gzip"] => read_bounded(flate2::read::MultiGzDecoder::new(body), max_bytes, "gzip").map(Cow::Owned),
        ["zstd"] => read_bounded(zstd_decoder(body)?, max_bytes, "zstd").map(Cow::Owned),
        _ => Err(Rejection::new(
            Reason::UnsupportedEncoding,
            format!(
                "content_encoding must be one of: {}; or one of the last two with a character set, such as gzip:utf-8",
                CONTENT_ENCODINGS.join(", ")
            ),
        )),
    }
}

fn zstd_decoder(body: &[u8]) -> Result<impl Read, Rejection> {
    let decoder = zstd::stream::read::Decoder::new(body).and_then(|mut decoder| {
        // A frame names the window size that its decoder must allocate. This bounds it: decoders should support 2^23
        // bytes (RFC 8878, section 3.1.1.1.2).
        decoder.window_log_max(23)?;
        Ok(decoder)
    });
    decoder.map_err(|_| invalid_stream("zstd"))
}

fn read_bounded(decoder: impl Read, max_bytes: usize, name: &'static str) -> Result<Vec<u8>, Rejection> {
    let mut out = Vec::new();
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut out).map_err(|_| invalid_stream(name))?;
    if out.len() > max_bytes {
        return Err(Rejection::new(
            Reason::TooLarge,
            format!("more than {max_bytes} bytes after {name} decompression"),
        ));
    }
    Ok(out)
}

fn invalid_stream(name: &'static str) -> Rejection {
    Rejection::new(
        Reason::UnsupportedEncoding,
        format!("content_encoding is {name}, but the body is not a valid {name} stream"),
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
    fn names_without_compression_return_the_body() {
        for name in ["", "identity", "UTF-8", " utf-8 ", "utf8", "us-ascii", "binary", "identity, utf-8"].map(Some) {
            assert_eq!(decompress(b"{}", name, 10).unwrap().as_ref(), b"{}", "{name:?}");
        }
    }

    #[test]
    fn gzip_and_zstd_are_decompressed_up_to_the_limit() {
        let bomb = vec![b' '; 1_000_000];
        let zstd = zstd::encode_all(&bomb[..], 3).unwrap();
        for (name, packed) in
            [("gzip", gzip(&bomb)), ("zstd", zstd), ("x-gzip", gzip(&bomb)), ("gzip:UTF-8", gzip(&bomb))]
        {
            assert_eq!(decompress(&packed, Some(name), 1_000_000).unwrap().len(), 1_000_000);
            assert_eq!(decompress(&packed, Some(name), 999_999).unwrap_err().reason, Reason::TooLarge);
        }
    }

    #[test]
    fn the_documented_names_are_supported() {
        for name in CONTENT_ENCODINGS {
            let is_known = !matches!(decompress(b"{}", Some(name), 10), Err(error) if error.detail.contains("one of"));
            assert!(is_known, "{name}");
        }
    }

    #[test]
    fn invalid_streams_and_other_names_are_unsupported() {
        let mut cut = gzip(b"{\"a\":1}");
        cut.truncate(cut.len() - 4);
        for (name, body) in
            [("gzip", cut.as_slice()), ("zstd", b"{}"), ("gzip", b"{}"), ("br", b"{}"), ("gzip, gzip", b"{}")]
        {
            assert_eq!(decompress(body, Some(name), 100).unwrap_err().reason, Reason::UnsupportedEncoding, "{name}");
        }
    }
}
