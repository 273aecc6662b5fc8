//! Owns a question to RabbitMQ's management API: where it is, who asks, and a list as the answer. Must not know what is asked.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lapin::uri::{AMQPScheme, AMQPUri};
use serde_json::Value;
use url::Url;

use crate::fetch;

use super::greeting::Greeting;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The API of one broker, asked about one virtual host.
pub(super) struct Management {
    base: Url,
    vhost: String,
    login: String,
}

impl Management {
    /// The one named, or else at its usual port of the broker's host, where the password travels unencrypted to the broker
    /// anyway; that one only if it is of the same cluster as the broker that gave this greeting: several may share a host.
    /// None where neither is to be asked.
    pub async fn find(uri: &AMQPUri, named: Option<&Url>, greeting: &Greeting) -> Option<Self> {
        if let Some(base) = named {
            return Some(Management::at(uri, base.clone()));
        }
        let usual = Url::parse(&format!("http://{}:15672", uri.authority.host)).ok();
        let api = Management::at(uri, usual.filter(|_| uri.scheme == AMQPScheme::AMQP)?);
        let overview = api.ask(&["api", "overview"]).await?;
        let cluster = overview.get("cluster_name").and_then(Value::as_str);
        (cluster.is_some() && cluster == greeting.cluster.as_deref()).then_some(api)
    }

    fn at(uri: &AMQPUri, base: Url) -> Self {
        let user = &uri.authority.userinfo;
        Management {
            base,
            vhost: if uri.vhost.is_empty() { "/".to_owned() } else { uri.vhost.clone() },
            login: format!("Basic {}", BASE64.encode(format!("{}:{}", user.username, user.password))),
        }
    }

    /// `/api/<what>/<vhost>/<rest>`; none if there is no answer that can be read.
    pub async fn list(&self, what: &str, rest: &[&str]) -> Option<Vec<Value>> {
        let path: Vec<&str> = ["api", what, &self.vhost].iter().chain(rest).copied().collect();
        match self.ask(&path).await? {
            Value::Array(listed) => Some(listed),
            _ => None,
        }
    }

    async fn ask(&self, path: &[&str]) -> Option<Value> {
        let mut url = self.base.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(path);
        let (status, body) = fetch::get(&url, Some(&self.login), PATIENCE).await?;
        serde_json::from_slice(&body).ok().filter(|_| status == 200)
    }
}
