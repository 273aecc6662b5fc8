//! Owns requests to RabbitMQ's management API: its address, its login, its lists.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::uri::AMQPUri;
use regex::Regex;
use serde_json::Value;
use url::Url;

use ticketlog_config::BrokerSettings;
use ticketlog_http::client::{self as http_client, NoResponse};

use super::super::connection::handshake;
use super::super::connection::uri::{Endpoints, is_encrypted};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The address of an API and the name of its cluster, which was that of the AMQP handshake. RabbitMQ logs a handshake that ends
/// early, so it is not repeated.
static VERIFIED: Mutex<Option<(String, String)>> = Mutex::new(None);

/// Why the management API gives no answer. Displayed as what happened, and what to do. Addresses hold no login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagementError {
    /// This setting cannot be parsed.
    InvalidUri(&'static str),
    /// It is looked for without TLS only.
    NotNamed,
    NoResponse {
        address: String,
        reason: NoResponse,
    },
    NotRabbitMq(String),
    OtherCluster(String),
    NoTag {
        user: String,
    },
    NotAuthorized {
        address: String,
        user: String,
    },
    NotFound,
}

impl ManagementError {
    /// What happened, without what to do about it.
    pub fn what(&self) -> String {
        let api = "RabbitMQ's management API";
        match self {
            ManagementError::InvalidUri(setting) => format!("{setting} cannot be parsed"),
            ManagementError::NotNamed => format!("{api} is not named, and with TLS it has no usual address"),
            ManagementError::NoResponse { address, reason } => format!("{api} does not answer at {address}: {reason}"),
            ManagementError::NotRabbitMq(address) => format!("{address} is not {api}"),
            ManagementError::OtherCluster(address) => format!("{api} at {address} is that of another cluster"),
            ManagementError::NoTag { user } => format!("{api} does not answer user {user}, who has no tag for it"),
            ManagementError::NotAuthorized { address, user } => {
                format!("{api} at {address} rejects user {user}, the password, or access to the virtual host")
            }
            ManagementError::NotFound => format!("{api} does not know the virtual host, or what it was asked for"),
        }
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            ManagementError::NotNamed => "set broker.management, such as https://rabbitmq:15671".to_owned(),
            ManagementError::NoResponse { reason: NoResponse::Tls, .. } => {
                "check its certificate, and broker.tls_ca".to_owned()
            }
            ManagementError::NoResponse { .. } => {
                "set broker.management to its address, or run `rabbitmq-plugins enable rabbitmq_management`".to_owned()
            }
            ManagementError::NotRabbitMq(_) | ManagementError::OtherCluster(_) => {
                "set broker.management to its address".to_owned()
            }
            ManagementError::NoTag { user } => format!("run `rabbitmqctl set_user_tags {user} management`"),
            ManagementError::NotAuthorized { .. } => {
                "check that the address is that of this broker, the login, and `rabbitmqctl list_permissions`"
                    .to_owned()
            }
            ManagementError::InvalidUri(_) | ManagementError::NotFound => "correct it".to_owned(),
        }
    }
}

impl std::fmt::Display for ManagementError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}; {}", self.what(), self.fix())
    }
}

impl std::error::Error for ManagementError {}

/// A policy whose pattern matches a queue.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MatchingPolicy {
    pub definition: Value,
    /// Whether it is an operator policy, which is merged with the other policy in force.
    pub is_operator: bool,
    /// Whether it applies to classic queues only.
    pub is_for_classic: bool,
}

/// The API of one broker, for one virtual host.
pub(super) struct ManagementApi {
    base: Url,
    vhost: String,
    user: String,
    authorization: String,
    ca_file: String,
}

impl ManagementApi {
    /// The API at `named`, or at `broker.management`; or else at port 15672 of the broker's host, if the broker connection is not
    /// encrypted either and the API names the same cluster as the AMQP handshake, because several brokers may share a host.
    pub async fn find(settings: &BrokerSettings, named: Option<&Url>) -> Result<Self, ManagementError> {
        let invalid = || ManagementError::InvalidUri(settings.uri_setting);
        let endpoints = Endpoints::parse(settings).map_err(|_| invalid())?;
        let uri = endpoints.first().ok_or_else(invalid)?;
        if let Some(base) = named.cloned().or_else(|| settings.management_url()) {
            return Ok(ManagementApi::new(settings, uri, base));
        }
        if is_encrypted(uri) {
            return Err(ManagementError::NotNamed);
        }
        let base =
            Url::parse(&format!("http://{}:15672", uri.authority.host)).map_err(|_| ManagementError::NotNamed)?;
        let api = ManagementApi::new(settings, uri, base);
        let overview = api.get(&["api", "overview"]).await?;
        let cluster = overview.get("cluster_name").and_then(Value::as_str);
        let cluster = cluster.ok_or_else(|| ManagementError::NotRabbitMq(api.address()))?;
        let found = (api.base.to_string(), cluster.to_owned());
        if VERIFIED.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(&found) {
            return Ok(api);
        }
        if handshake::server_properties(&endpoints).await.cluster_name.as_deref() != Some(cluster) {
            return Err(ManagementError::OtherCluster(api.address()));
        }
        *VERIFIED.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(api)
    }

    fn new(settings: &BrokerSettings, uri: &AMQPUri, base: Url) -> Self {
        let user = &uri.authority.userinfo;
        ManagementApi {
            base,
            vhost: if uri.vhost.is_empty() { "/".to_owned() } else { uri.vhost.clone() },
            user: user.username.to_string(),
            authorization: format!("Basic {}", BASE64.encode(format!("{}:{}", user.username, user.password))),
            ca_file: settings.tls_ca.clone(),
        }
    }

    /// The list at `/api/<kind>/<vhost>/<path>`.
    pub async fn list(&self, kind: &str, path: &[&str]) -> Result<Vec<Value>, ManagementError> {
        match self.object(kind, path).await? {
            Value::Array(list) => Ok(list),
            _ => Err(ManagementError::NotRabbitMq(self.address())),
        }
    }

    /// What is at `/api/<kind>/<vhost>/<path>`.
    pub async fn object(&self, kind: &str, path: &[&str]) -> Result<Value, ManagementError> {
        let path: Vec<&str> = ["api", kind, &self.vhost].iter().chain(path).copied().collect();
        self.get(&path).await
    }

    /// All policies and operator policies whose pattern matches the queue. Which of them is in force
    /// depends on their priorities.
    ///
    /// The policies themselves are read, because the API's data about a queue may be ten seconds old.
    pub async fn queue_policies(&self, queue: &str) -> Result<Vec<MatchingPolicy>, ManagementError> {
        let policies = matching(&self.list("policies", &[]).await?, queue, false);
        let operator = matching(&self.list("operator-policies", &[]).await?, queue, true);
        Ok(policies.into_iter().chain(operator).collect())
    }

    fn address(&self) -> String {
        self.base.to_string()
    }

    async fn get(&self, path: &[&str]) -> Result<Value, ManagementError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let answer = http_client::get(&url, Some(&self.authorization), Some(&self.ca_file), TIMEOUT).await;
        let (status, body) =
            answer.map_err(|reason| ManagementError::NoResponse { address: self.address(), reason })?;
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        let text = |key: &str| json.as_ref().and_then(|json| json.get(key)?.as_str()).unwrap_or_default();
        match (status, text("reason")) {
            (200, _) => json.ok_or_else(|| ManagementError::NotRabbitMq(self.address())),
            // Its texts: "Login failed" and "Not management user", with "not_authorised" (`rabbit_mgmt_util`).
            (401 | 403, reason) if reason.contains("management user") => {
                Err(ManagementError::NoTag { user: self.user.clone() })
            }
            (401 | 403, _) if text("error").starts_with("not_authori") => {
                Err(ManagementError::NotAuthorized { address: self.address(), user: self.user.clone() })
            }
            (404, _) if !text("error").is_empty() => Err(ManagementError::NotFound),
            _ => Err(ManagementError::NotRabbitMq(self.address())),
        }
    }
}

fn matching(policies: &[Value], queue: &str, is_operator: bool) -> Vec<MatchingPolicy> {
    let text = |policy: &Value, key: &str| policy.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let matches = |policy: &&Value| {
        // A pattern that this regex engine cannot parse may match in RabbitMQ.
        let mismatch = Regex::new(&text(policy, "pattern")).is_ok_and(|pattern| !pattern.is_match(queue));
        !mismatch && !["exchanges", "streams"].contains(&text(policy, "apply-to").as_str())
    };
    let matched = policies.iter().filter(matches).filter_map(|policy| {
        let is_for_classic = text(policy, "apply-to") == "classic_queues";
        Some(MatchingPolicy { definition: policy.get("definition")?.clone(), is_operator, is_for_classic })
    });
    matched.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_match_by_pattern_and_kind() {
        let policy = |pattern: &str, apply_to: &str, length: i64| json!({ "pattern": pattern, "apply-to": apply_to, "definition": { "max-length": length } });
        let all = [
            policy("^other$", "queues", 1),
            policy(".*dead$", "exchanges", 2),
            policy("dead", "all", 3),
            policy("(?<x", "classic_queues", 4),
        ];
        let matched = |length: i64, is_for_classic| MatchingPolicy {
            definition: json!({ "max-length": length }),
            is_operator: true,
            is_for_classic,
        };
        assert_eq!(matching(&all, "log.dead", true), [matched(3, false), matched(4, true)]);
    }
}
