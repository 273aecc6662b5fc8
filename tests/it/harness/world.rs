//! The worlds of `make worlds`, in which the integration tests run again: `TICKETLOG_TEST_WORLD` names one. What differs
//! there is applied here, and nowhere else; tests that make no sense in a world are listed in `.config/nextest.toml`.

use std::process::Command;
use std::time::Duration;

use mongodb::Client;

use super::slow_link::slow_link;
use super::{access_control, server_uri, shift_clock};

/// What differs from the machine of `make test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    /// Nothing.
    Usual,
    /// Every worker's clock is a minute behind, that of all other commands a minute ahead.
    Clocks,
    /// Worker and operator have the logins of `deploy/` with the least privileges, over TLS.
    Logins,
    /// 20 ms of round trip to both servers.
    Delay,
    /// RabbitMQ is a cluster of three nodes.
    Cluster,
}

/// One way of [`World::Delay`].
const ONE_WAY: Duration = Duration::from_millis(10);

/// By which addresses and logins a command reaches the servers, with further settings.
#[derive(Debug, Clone)]
pub struct Access {
    pub broker_uri: String,
    pub store_uri: String,
    pub settings: Vec<(&'static str, String)>,
}

/// The accesses of one test.
#[derive(Debug, Clone)]
pub struct Accesses {
    pub worker: Access,
    pub operator: Access,
}

impl World {
    pub fn current() -> World {
        match std::env::var("TICKETLOG_TEST_WORLD").as_deref() {
            Err(_) => World::Usual,
            Ok("clocks") => World::Clocks,
            Ok("logins") => World::Logins,
            Ok("delay") => World::Delay,
            Ok("cluster") => World::Cluster,
            Ok(other) => panic!("TICKETLOG_TEST_WORLD={other}: expected clocks, logins, delay or cluster"),
        }
    }

    /// The addresses of the servers at these URIs: in a slow world, those of proxies.
    pub fn addresses(self, broker_uri: String, store_uri: String) -> (String, String) {
        if self != World::Delay {
            return (broker_uri, store_uri);
        }
        let mut broker = url::Url::parse(&broker_uri).unwrap();
        broker.set_port(Some(slow_link(broker.port().unwrap(), || ONE_WAY))).unwrap();
        // The members of a replica set would be found at their own addresses. One with several members stays as it is.
        let Ok(mut store) = url::Url::parse(&store_uri) else { return (broker.into(), store_uri) };
        store.set_port(Some(slow_link(store.port().unwrap(), || ONE_WAY))).unwrap();
        store.set_query(Some("directConnection=true"));
        (broker.into(), store.into())
    }

    /// How commands reach the servers at these addresses in the test with this name. The client is the administrator's.
    pub async fn accesses(self, name: &str, client: &Client, broker_uri: &str, store_uri: &str) -> Accesses {
        let access = |broker_uri: &str, store_uri: &str, settings| Access {
            broker_uri: broker_uri.to_owned(),
            store_uri: store_uri.to_owned(),
            settings,
        };
        let is_shared =
            || broker_uri == server_uri("TICKETLOG_BROKER__URI") && store_uri == server_uri("TICKETLOG_STORE__URI");
        if self != World::Logins || !is_shared() {
            let usual = access(broker_uri, store_uri, Vec::new());
            return Accesses { worker: usual.clone(), operator: usual };
        }
        access_control::roles(client, name, "log").await;
        let ca = ("BROKER__TLS_CA", server_uri("TICKETLOG_LOCAL_TLS_CA"));
        let broker =
            |user: &str| server_uri("TICKETLOG_LOCAL_TLS_BROKER_URI").replace("guest:guest", &format!("{user}:secret"));
        let store = |role: &str| {
            let uri = server_uri("TICKETLOG_LOCAL_TLS_STORE_URI");
            let (_, rest) = uri.split_once('@').unwrap();
            let rest = rest.replace("authSource=admin", &format!("authSource={name}"));
            format!("mongodb://{role}:{role}-secret@{rest}")
        };
        let workers = vec![
            ca.clone(),
            ("BROKER__DECLARE", "false".to_owned()),
            ("DEAD_LETTER__OPERATORS", "ticketlog-desk".to_owned()),
        ];
        Accesses {
            worker: access(&broker("ticketlog"), &store("ticketlogWorker"), workers),
            operator: access(&broker("ticketlog-desk"), &store("ticketlogEraser"), vec![ca]),
        }
    }

    /// Sets the clock of a command, and then, if it is a worker, the worker's.
    pub fn set_clock(self, command: &mut Command, is_worker: bool) {
        if self == World::Clocks {
            shift_clock(command, if is_worker { -60 } else { 60 });
        }
    }
}
