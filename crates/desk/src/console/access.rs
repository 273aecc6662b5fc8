//! Owns who may do what: roles, the file of tokens, sessions, and the limit on failed logins.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngCore as _;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use strum::{EnumString, IntoStaticStr, VariantNames};
use tracing::{info, warn};

/// How long a login lasts.
const SESSION_DURATION: Duration = Duration::from_secs(12 * 3600);
/// Most sessions; for a further one the oldest ends.
const MAX_SESSIONS: usize = 1000;
/// Most failed logins within a minute; further ones get another answer. Right tokens pass, so that nobody can lock out others.
const MAX_FAILURES: usize = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Shortest token, in characters.
const MIN_TOKEN: usize = 20;
/// Bytes of an `app_id`, which is an AMQP short string.
const PUBLISHER_BYTES: RangeInclusive<usize> = 1..=255;

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, EnumString, IntoStaticStr, VariantNames)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// See and export dead letters, bodies included.
    View,
    /// Change bodies while they are replayed.
    Edit,
    /// Replay, park and unpark.
    Replay,
    /// Delete.
    Purge,
}

impl Role {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A person, or a program with a token.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub name: String,
    pub roles: BTreeSet<Role>,
    /// The only publisher whose dead letters it may see and change; `None` for all.
    pub publisher: Option<String>,
    /// What a form must contain, so that no other site can send it; none for programs, which send their token.
    pub csrf: Option<String>,
    /// Whether there is a login that can be ended.
    pub has_session: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    token: String,
    roles: BTreeSet<Role>,
    publisher: Option<String>,
}

/// Whose a token is.
#[derive(Debug)]
struct Owner {
    name: String,
    roles: BTreeSet<Role>,
    publisher: Option<String>,
}

/// The people of a token file.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_hash: HashMap<Vec<u8>, Owner>,
}

impl Tokens {
    /// Reads a file with `NAME = { token = "…", roles = ["view", …] }` lines (TOML), which may have `publisher = "…"`.
    ///
    /// # Errors
    /// It cannot be read, others than its owner can read it, or it is not valid.
    fn read(path: &Path) -> Result<Tokens, String> {
        Tokens::parse(&read_private(path)?).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        let entries: HashMap<String, TokenEntry> = toml::from_str(text).map_err(|error| {
            format!("expected lines such as anna = {{ token = \"…\", roles = [\"view\"] }}: {}", error.message())
        })?;
        if entries.is_empty() {
            return Err("it has no tokens".to_owned());
        }
        let mut by_hash = HashMap::new();
        for (name, entry) in entries {
            if entry.token.chars().count() < MIN_TOKEN {
                return Err(format!("the token of {name} is shorter than {MIN_TOKEN} characters"));
            }
            if entry.publisher.as_ref().is_some_and(|publisher| !PUBLISHER_BYTES.contains(&publisher.len())) {
                return Err(format!("the publisher of {name} must be an app_id of 1 to 255 bytes"));
            }
            let owner = Owner { name: name.clone(), roles: entry.roles, publisher: entry.publisher };
            if by_hash.insert(hash(&entry.token), owner).is_some() {
                return Err(format!("the token of {name} is that of somebody else as well"));
            }
        }
        Ok(Tokens { by_hash })
    }
}

/// A file of tokens, which is read again when it changes: a token that is revoked there ends its sessions.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    known: Mutex<(Option<Version>, Arc<Tokens>)>,
}

/// What tells one version of a file from the next: its inode, size, and times of modification and change.
type Version = [i64; 6];

fn version(path: &Path) -> Option<Version> {
    let file = std::fs::metadata(path).ok()?;
    let (inode, size) = (file.ino().cast_signed(), file.size().cast_signed());
    Some([inode, size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
}

impl TokenFile {
    /// # Errors
    /// As for reading it.
    pub fn open(path: &Path) -> Result<TokenFile, String> {
        // Before it is read: a change meanwhile is read again.
        let version = version(path);
        let tokens = Arc::new(Tokens::read(path)?);
        Ok(TokenFile { path: path.to_owned(), known: Mutex::new((version, tokens)) })
    }

    /// The tokens of now. Those before remain valid while the file is missing or not valid.
    fn tokens(&self) -> Arc<Tokens> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = version(&self.path);
        if now != known.0 {
            known.0 = now;
            match Tokens::read(&self.path) {
                Ok(tokens) => {
                    known.1 = Arc::new(tokens);
                    info!("the file of tokens has changed and was read again");
                }
                Err(error) => {
                    warn!(error, "the changed file of tokens cannot be used; the previous tokens remain valid")
                }
            }
        }
        Arc::clone(&known.1)
    }
}

/// The text of a file with secrets.
fn read_private(path: &Path) -> Result<String, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let mode = std::fs::metadata(path).map_err(|error| format!("{name} cannot be read: {error}"))?.mode();
    if mode & 0o007 != 0 {
        return Err(format!("{name} can be read by everybody on this machine; run `chmod o-rwx {name}`"));
    }
    Ok(text)
}

/// What a proxy sends with every request, so that nobody else can speak in its name.
#[derive(Debug)]
pub(super) struct ProxySecret(Vec<u8>);

impl ProxySecret {
    /// Reads a file with the secret in its only line.
    ///
    /// # Errors
    /// It cannot be read, others than its owner can read it, or the secret is too short or cannot be a header.
    pub fn read(path: &Path) -> Result<ProxySecret, String> {
        let text = read_private(path)?;
        let secret = text.trim();
        if secret.len() < MIN_TOKEN || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            let name = path.display();
            return Err(format!("{name}: expected one line of at least {MIN_TOKEN} letters and digits"));
        }
        Ok(ProxySecret(hash(secret)))
    }

    /// Whether this is it. Hashes are compared, as those of tokens.
    pub fn is(&self, sent: &str) -> bool {
        self.0 == hash(sent.trim())
    }
}

fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// 256 random bits in hexadecimal.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct LoginSession {
    token: Vec<u8>,
    csrf: String,
    began: Instant,
}

/// The logins of a console with tokens.
pub(super) struct Logins {
    tokens: TokenFile,
    /// What the console allows at all.
    allowed: BTreeSet<Role>,
    sessions: Mutex<HashMap<String, LoginSession>>,
    failures: Mutex<Vec<Instant>>,
}

/// Why a login is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LoginError {
    WrongToken,
    TooManyFailures,
}

impl Logins {
    pub fn new(tokens: TokenFile, allowed: BTreeSet<Role>) -> Logins {
        Logins { tokens, allowed, sessions: Mutex::default(), failures: Mutex::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, LoginSession>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token this is, by its hash: so the time tells nothing about the tokens.
    fn find(&self, hash: &[u8]) -> Option<Operator> {
        let tokens = self.tokens.tokens();
        let owner = tokens.by_hash.get(hash)?;
        let roles = owner.roles.intersection(&self.allowed).copied().collect();
        let (name, publisher) = (owner.name.clone(), owner.publisher.clone());
        Some(Operator { name, roles, publisher, csrf: None, has_session: false })
    }

    /// Who has this token.
    pub fn check(&self, token: &str, now: Instant) -> Result<Operator, LoginError> {
        self.find(&hash(token)).ok_or_else(|| {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.retain(|failure| now.duration_since(*failure) < FAILURE_WINDOW);
            if failures.len() >= MAX_FAILURES {
                return LoginError::TooManyFailures;
            }
            failures.push(now);
            LoginError::WrongToken
        })
    }

    /// Begins a session; returns its id.
    pub fn log_in(&self, token: &str, now: Instant) -> Result<String, LoginError> {
        self.check(token, now)?;
        let id = random_id();
        let mut sessions = self.sessions();
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.began).map(|(id, _)| id.clone());
            oldest.and_then(|oldest| sessions.remove(&oldest));
        }
        sessions.insert(id.clone(), LoginSession { token: hash(token), csrf: random_id(), began: now });
        Ok(id)
    }

    /// Who has this session, with the roles that the token has now; `None` also if the token was revoked.
    pub fn operator(&self, session: &str, now: Instant) -> Option<Operator> {
        let mut sessions = self.sessions();
        sessions.retain(|_, session| now.duration_since(session.began) < SESSION_DURATION);
        let session = sessions.get(session)?;
        Some(Operator { has_session: true, csrf: Some(session.csrf.clone()), ..self.find(&session.token)? })
    }

    pub fn log_out(&self, session: &str) {
        self.sessions().remove(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        anna = { token = "anna-0123456789abcdef", roles = ["view", "replay", "purge"] }
        otto = { token = "otto-0123456789abcdef", roles = ["view"] }
    "#;

    fn write(path: &Path, text: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn logins_of(path: &Path) -> Logins {
        write(path, FILE, 0o600);
        Logins::new(TokenFile::open(path).unwrap(), BTreeSet::from([Role::View, Role::Replay]))
    }

    fn logins() -> Logins {
        logins_of(&tempfile::tempdir().unwrap().path().join("tokens.toml"))
    }

    #[test]
    fn a_token_that_is_revoked_ends_its_sessions_and_new_roles_count_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let (logins, now) = (logins_of(&path), Instant::now());
        let [anna, otto] =
            ["anna", "otto"].map(|name| logins.log_in(&format!("{name}-0123456789abcdef"), now).unwrap());
        let roles = |id: &str| logins.operator(id, now).map(|operator| operator.roles);
        // A file that is not valid, and one that others can read, change nothing.
        write(&path, "otto = {", 0o600);
        assert!(roles(&anna).is_some());
        let changed = r#"otto = { token = "otto-0123456789abcdef", roles = ["view", "replay"] }"#;
        write(&path, changed, 0o644);
        assert_eq!(roles(&otto), Some(BTreeSet::from([Role::View])));
        write(&path, changed, 0o600);
        assert_eq!((roles(&anna), roles(&otto)), (None, Some(BTreeSet::from([Role::View, Role::Replay]))));
        assert_eq!(logins.log_in("anna-0123456789abcdef", now), Err(LoginError::WrongToken));
    }

    #[test]
    fn a_session_has_the_roles_that_both_the_token_and_the_console_allow() {
        let (logins, now) = (logins(), Instant::now());
        let id = logins.log_in("anna-0123456789abcdef", now).unwrap();
        let operator = logins.operator(&id, now).unwrap();
        assert_eq!((operator.name.as_str(), operator.has_session), ("anna", true));
        assert_eq!(operator.roles, BTreeSet::from([Role::View, Role::Replay]));
        assert!(logins.operator("other", now).is_none());
        assert!(logins.operator(&id, now + SESSION_DURATION).is_none());
        let id = logins.log_in("otto-0123456789abcdef", now).unwrap();
        logins.log_out(&id);
        assert!(logins.operator(&id, now).is_none());
    }

    #[test]
    fn after_many_failures_wrong_tokens_are_refused_for_a_minute_and_right_ones_are_not() {
        let (logins, now) = (logins(), Instant::now());
        for _ in 0..MAX_FAILURES {
            assert_eq!(logins.log_in("wrong", now), Err(LoginError::WrongToken));
        }
        assert_eq!(logins.log_in("wrong", now), Err(LoginError::TooManyFailures));
        assert_eq!(logins.log_in("wrong", now + FAILURE_WINDOW), Err(LoginError::WrongToken));
        assert!(logins.log_in("anna-0123456789abcdef", now).is_ok());
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let error = |text| Tokens::parse(text).unwrap_err();
        assert_eq!(error("a = { token = \"short\", roles = [] }"), "the token of a is shorter than 20 characters");
        assert!(error("a = 1").starts_with("expected lines such as anna"));
        assert!(error("a = { token = \"0123456789abcdefghij\", roles = [\"fly\"] }").contains("fly"));
        let publisher = "a = { token = \"0123456789abcdefghij\", roles = [], publisher = \"\" }";
        assert_eq!(error(publisher), "the publisher of a must be an app_id of 1 to 255 bytes");
        assert_eq!(error(""), "it has no tokens");
    }

    #[test]
    fn a_secret_of_a_proxy_is_long_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let read = |text: &str, mode| {
            write(&path, text, mode);
            ProxySecret::read(&path)
        };
        let secret = read("0123456789abcdef0123\n", 0o640).unwrap();
        assert!(secret.is("0123456789abcdef0123") && !secret.is("0123456789abcdef012") && !secret.is(""));
        assert!(read("0123456789abcdef0123", 0o644).unwrap_err().contains("chmod"));
        for wrong in ["short", "0123456789abcdef0123\n0123456789abcdef0123", "0123456789 abcdef 0123"] {
            assert!(read(wrong, 0o600).unwrap_err().contains("at least 20"), "{wrong}");
        }
        assert!(ProxySecret::read(&directory.path().join("missing")).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn random_ids_differ() {
        assert!(random_id() != random_id() && random_id().len() == 64);
    }
}
