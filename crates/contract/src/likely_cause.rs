//! What a rejected body probably is instead of an event: a closed list, each with what to send. The detail of the rejection, the tables of
//! the docs and the console's advice take it from here.

use strum::{EnumMessage, EnumProperty, IntoStaticStr, VariantArray};

/// What a body, or the value of a field, probably is. The doc comment says what it is, `message` is the detail: what was found and what to send
/// instead, in words that hold no value; `edit`, where there is one, is an expression for `--edit` that often helps. No two details differ in
/// digits alone, because those do not count in a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumMessage, EnumProperty, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LikelyCause {
    /// `NaN` or `Infinity`, which many encoders write for a number that JSON does not have.
    #[strum(
        message = "not JSON: NaN or Infinity; send null (Python: json.dumps(…, allow_nan=False) finds them)",
        props(edit = "gsub(\"NaN|-?Infinity\"; \"null\") | fromjson")
    )]
    NotANumber,
    /// `str()` of a dict in Python: single quotes, `None`, `True`.
    #[strum(message = "not JSON: str() or repr() of a Python dict; send json.dumps(…)")]
    PythonDict,
    /// `str()` of bytes in Python: `b'…'`.
    #[strum(message = "not JSON: str() of Python bytes (b'…'); send the bytes themselves")]
    PythonBytes,
    /// JSON that was escaped for HTML: `{&quot;…`.
    #[strum(
        message = "not JSON: its quotes are HTML escapes (&quot;); send it without escaping it for HTML",
        props(edit = "gsub(\"&quot;|&#34;\"; \"\\\"\") | fromjson")
    )]
    HtmlEscapes,
    /// XML, or a page of HTML.
    #[strum(message = "not JSON: XML or HTML; send one JSON object")]
    Xml,
    /// Form data: `user_id=42&status=ok`.
    #[strum(message = "not JSON: form data (key=value&…); send one JSON object")]
    FormData,
    /// Base64.
    #[strum(message = "not JSON: Base64; send the JSON itself, not encoded", props(edit = "@base64d | fromjson"))]
    Base64,
    /// `serialize()` of PHP.
    #[strum(message = "not JSON: serialize() of PHP; send json_encode(…)")]
    PhpSerialized,
    /// `[object Object]`, the text of an object in JavaScript.
    #[strum(message = "not JSON: [object Object], the text of a JavaScript object; send JSON.stringify(…)")]
    ObjectText,
    /// JSON, and NUL characters behind it: the terminator of a text in C.
    #[strum(
        message = "not JSON: a NUL character behind the object; send the text without its terminator (C: strlen bytes)",
        props(edit = "gsub(\"\\u0000\"; \"\") | fromjson")
    )]
    TrailingNul,
    /// JSON inside a JSON string.
    #[strum(
        message = "JSON inside a JSON string: it was encoded twice; send the object, encoded once",
        props(edit = "fromjson")
    )]
    EncodedTwice,
    /// An array, often of several events.
    #[strum(message = "the root is an array; send one message for each event", props(edit = ".[0]"))]
    Array,
    /// Several JSON objects behind each other.
    #[strum(message = "several JSON objects in one body; send one message for each event")]
    SeveralObjects,
    /// JSON whose end is missing.
    #[strum(message = "not JSON: the end of the text is missing; it was cut off, or sent with a wrong length")]
    CutOff,
    /// An object with a key without double quotes, as in a program's source.
    #[strum(message = "not JSON: a key without double quotes; send JSON.stringify(…) or json.dumps(…)")]
    UnquotedKey,
    /// A text that does not begin as JSON does.
    #[strum(message = "not JSON: plain text; send one JSON object")]
    PlainText,
    /// A date as text in a field that is a number.
    #[strum(
        message = "a date as text; send milliseconds since 1970 (JavaScript: getTime(), Python: int(t.timestamp() * 1000))"
    )]
    DateText,
    /// Extended JSON such as `{"$numberLong": …}` or `{"$oid": …}`, which is not interpreted.
    #[strum(message = "extended JSON (an object with a key that begins with $); send the plain number or text")]
    ExtendedJson,
    /// gzip, without `content_encoding`.
    #[strum(message = "the body is compressed with gzip; set content_encoding to gzip")]
    Gzip,
    /// zlib, which is called `deflate` in HTTP.
    #[strum(
        message = "the body is compressed with zlib (deflate), which is not supported; compress with gzip or zstd and name it in content_encoding"
    )]
    Zlib,
    /// zstd, without `content_encoding`.
    #[strum(message = "the body is compressed with zstd; set content_encoding to zstd")]
    Zstd,
    /// MessagePack.
    #[strum(message = "the body is MessagePack; send JSON in UTF-8")]
    MessagePack,
    /// A pickle of Python, as Celery and kombu can send it.
    #[strum(message = "the body is a Python pickle; send JSON in UTF-8 (Celery, kombu: serializer='json')")]
    Pickle,
    /// A serialised object of Java, as Spring's default converter sends it.
    #[strum(
        message = "the body is a serialised Java object; send JSON in UTF-8 (Spring AMQP: Jackson2JsonMessageConverter)"
    )]
    JavaObject,
    /// Protocol Buffers.
    #[strum(message = "the body looks like Protocol Buffers; send JSON in UTF-8")]
    Protobuf,
    /// Avro, or the header that the serialisers of a schema registry write.
    #[strum(message = "the body is Avro, or has the header of a schema registry; send JSON in UTF-8 without a header")]
    Avro,
    /// BSON.
    #[strum(message = "the body is BSON; send JSON in UTF-8")]
    Bson,
    /// UTF-16 or UTF-32, with its mark or without.
    #[strum(
        message = "the body is UTF-16 or UTF-32; encode the text as UTF-8 (.NET: Encoding.UTF8, not Encoding.Unicode)"
    )]
    Utf16,
    /// Latin-1 or Windows-1252.
    #[strum(message = "the text is in Latin-1 or Windows-1252; encode it as UTF-8", props(edit = "fromjson"))]
    Latin1,
    /// A section of AMQP 1.0 that is not data: the message has a value or a sequence as its body.
    #[strum(message = "the body is an AMQP 1.0 value; send the JSON in a data section (a binary body)")]
    Amqp10Value,
}

impl LikelyCause {
    /// What it is.
    pub fn meaning(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }

    /// What was found, and what to send instead. It is part of the detail of a rejection.
    pub fn detail(self) -> &'static str {
        self.get_message().unwrap_or_default()
    }

    /// What an operator can do.
    pub fn remedy(self) -> &'static str {
        match (self, self.edit()) {
            (LikelyCause::Gzip | LikelyCause::Zstd, _) => {
                "Tell the publisher. The dead letter cannot get a content_encoding: export it, decompress it elsewhere, and publish the event again."
            }
            (_, Some(_)) => "Tell the publisher, and edit what has arrived.",
            (_, None) => "Tell the publisher, and ask for the event again: an expression seldom makes an event of it.",
        }
    }

    /// An expression for `--edit` that often helps.
    pub fn edit(self) -> Option<&'static str> {
        self.get_str("edit")
    }

    /// The cause that a detail names.
    pub fn of_detail(detail: &str) -> Option<LikelyCause> {
        LikelyCause::VARIANTS.iter().copied().find(|cause| detail.contains(cause.detail()))
    }
}
