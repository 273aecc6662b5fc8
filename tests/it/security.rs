//! TLS and mutual TLS to both servers, with certificates that the test makes; what is rejected, and with which message.
//! Fault 29 in docs/develop/reliability.md.

use std::path::{Path, PathBuf};

use bson::doc;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use crate::harness::{
    DEADLINE, DedicatedServer, SHORT_TIMEOUTS, ServerKind, TestEnv, TestMessage, Worker, access_control, eventually,
};

/// Certificates and keys, as files in a temporary directory.
struct Certificates(tempfile::TempDir);

impl Certificates {
    /// A CA with certificates for a server (valid, expired, and of another host) and for a client; and a CA that signs
    /// nothing.
    fn new() -> Self {
        let certificates = Certificates(tempfile::tempdir().unwrap());
        let authority = certificates.authority("ca");
        certificates.authority("other-ca");
        certificates.signed("server", "127.0.0.1", &authority, 2099);
        certificates.signed("expired", "127.0.0.1", &authority, 2001);
        certificates.signed("wrong-host", "broker.example", &authority, 2099);
        certificates.signed("client", "ticketlog", &authority, 2099);
        certificates
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn authority(&self, name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), issuer.pem()).unwrap();
        issuer
    }

    fn signed(&self, name: &str, host: &str, issuer: &CertifiedIssuer<'static, KeyPair>, expiry_year: i32) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(expiry_year, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.both")), certificate.pem() + &key.serialize_pem()).unwrap();
    }

    /// A broker with a plain port and a TLS port, which requires a client certificate of the CA.
    fn broker(&self, certificate: &str) -> DedicatedServer {
        DedicatedServer::prepared(ServerKind::Rabbitmq, |directory, port| {
            let [ca, certificate, key] = [
                self.text("ca.pem"),
                self.text(&format!("{certificate}.pem")),
                self.text(&format!("{certificate}.key")),
            ];
            let lines = [
                format!("listeners.ssl.default = 127.0.0.1:{}", port + 3),
                format!(
                    "ssl_options.cacertfile = {ca}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}"
                ),
                "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n".to_owned(),
            ];
            std::fs::write(directory.join("extra.conf"), lines.join("\n")).unwrap();
        })
    }

    /// A MongoDB that accepts TLS from clients with a certificate of the CA.
    fn store(&self) -> DedicatedServer {
        DedicatedServer::prepared(ServerKind::Mongodb, |directory, _| {
            write_arguments(directory, &self.text("server.both"), &self.text("ca.pem"))
        })
    }
}

fn write_arguments(directory: &Path, certificate: &str, ca: &str) {
    let lines = ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", certificate, "--tlsCAFile", ca].join("\n");
    std::fs::write(directory.join("arguments"), lines).unwrap();
}

fn amqps_uri(broker: &DedicatedServer) -> String {
    format!("amqps://guest:guest@127.0.0.1:{}/%2f", broker.port() + 3)
}

#[tokio::test]
async fn fault_29_mutual_tls_to_both_servers() {
    let certificates = Certificates::new();
    let (broker, store) = (certificates.broker("server"), certificates.store());
    let env = TestEnv::on(&broker, &store).await;
    let (amqps, ca, certificate, key) = (
        amqps_uri(&broker),
        certificates.text("ca.pem"),
        certificates.text("client.pem"),
        certificates.text("client.key"),
    );
    let mongodb =
        format!("{}&tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={}", env.store_uri, certificates.text("client.both"));
    let mut settings = SHORT_TIMEOUTS.to_vec();
    settings.extend([
        ("BROKER__URI", amqps.as_str()),
        ("BROKER__TLS_CA", ca.as_str()),
        ("BROKER__TLS_CERTIFICATE", certificate.as_str()),
        ("BROKER__TLS_KEY", key.as_str()),
        ("STORE__URI", mongodb.as_str()),
    ]);
    let mut worker = env.worker_with(&settings).await;
    env.publish_all((0..500).map(TestMessage::numbered)).await;
    env.publish(&TestMessage::body("nonsense")).await;
    worker.wait_until_settled(501).await;
    worker.wait_until_ready().await;
    assert_eq!(env.take_all_messages(&env.dead_letter_queue()).await.len(), 1);
    env.assert_all_stored("29 mutual TLS to both servers", 500, &[&worker]).await;
    worker.stop().await;
    // With another CA, another host name, plain AMQP on the TLS port, TLS on the plain port, or no client certificate,
    // no connection may succeed.
    for (change, expected) in [
        (("BROKER__TLS_CA", certificates.text("other-ca.pem")), "broker: the TLS handshake with RabbitMQ failed"),
        (
            ("BROKER__URI", amqps.replacen("127.0.0.1", "localhost", 1)),
            "broker: the TLS handshake with RabbitMQ failed",
        ),
        (("BROKER__URI", amqps.replacen("amqps", "amqp", 1)), "broker:"),
        (
            ("BROKER__URI", env.broker_uri.replacen("amqp", "amqps", 1)),
            "broker: the TLS handshake with RabbitMQ failed",
        ),
        (("STORE__URI", mongodb.replacen("/ca.pem", "/other-ca.pem", 1)), "store:"),
        (("STORE__URI", mongodb.split("&tlsCertificateKeyFile").next().unwrap().to_owned()), "store:"),
    ] {
        let mut changed = settings.clone();
        changed.push((change.0, change.1.as_str()));
        let mut worker = env.worker_with(&changed).await;
        let rejected = async || {
            let (code, text) = worker.get("/readyz");
            code == 503 && text.contains(expected) && !text.contains(&format!("{expected} starting"))
        };
        eventually(&format!("{change:?} is rejected"), DEADLINE, rejected).await;
        assert!(!worker.log().contains("guest:guest"));
        worker.stop().await;
    }
}

#[tokio::test]
async fn fault_29_expired_and_wrong_certificates_are_rejected() {
    let certificates = Certificates::new();
    for certificate in ["expired", "wrong-host"] {
        let broker = certificates.broker(certificate);
        let uri = format!("broker.uri={}", amqps_uri(&broker));
        let ca = format!("broker.tls_ca={}", certificates.text("ca.pem"));
        let rejected = || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
            let output = command.args(["setup", "--set", &uri, "--set", &ca]).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            output.status.code() == Some(69) && text.contains("the TLS handshake with RabbitMQ failed")
        };
        // RabbitMQ opens the port for TLS after the other one.
        eventually(&format!("{certificate} is rejected"), DEADLINE, async || rejected()).await;
    }
}

#[tokio::test]
async fn credentials_are_renewed_without_a_restart() {
    let broker = DedicatedServer::start(ServerKind::Rabbitmq);
    let (mut store, client) = access_control::store().await;
    let mut env = TestEnv::at(broker.uri(), access_control::as_user(&store, "admin", "admin")).await;
    broker.add_user("renewed", "renewed-old", Some([".*"; 3]));
    let user = |command: &str, password: &str| doc! { command: "renewed", "pwd": password, "roles": ["root"] };
    client.database("admin").run_command(user("createUser", "renewed-old")).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = ["broker", "store"].map(|name| directory.path().join(name));
    let store_uri = access_control::as_user(&store, "renewed", "admin");
    let write_files = |password: &str| {
        let uri = broker.uri().replace("guest:guest", &format!("renewed:{password}"));
        std::fs::write(&files[0], uri).unwrap();
        std::fs::write(&files[1], store_uri.replace("renewed-secret", password) + "\n").unwrap();
    };
    write_files("renewed-old");
    let mut command = env.command();
    command.envs(SHORT_TIMEOUTS.map(|(key, value)| (format!("TICKETLOG_{key}"), value)));
    for (section, file) in ["BROKER", "STORE"].iter().zip(&files) {
        command.env_remove(format!("TICKETLOG_{section}__URI")).env(format!("TICKETLOG_{section}__URI_FILE"), file);
    }
    let worker = Worker::start(command).await;
    env.publish_all((0..1000).map(TestMessage::numbered)).await;
    eventually("some are stored", DEADLINE, async || env.count().await > 0).await;
    broker.ctl(&["change_password", "renewed", "renewed-new"]);
    client.database("admin").run_command(user("updateUser", "renewed-new")).await.unwrap();
    broker.ctl(&["close_all_connections", "renewal"]);
    store.kill();
    store.restart();
    let rejected = async || worker.get("/readyz").1.contains("rejects the user name or the password");
    eventually("the old password is rejected", DEADLINE, rejected).await;
    write_files("renewed-new");
    env.reconnect().await;
    env.publish_all((1000..2000).map(TestMessage::numbered)).await;
    eventually("all are stored", DEADLINE, async || env.count().await == 2000).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("29 credentials renewed under load", 2000, &[&worker]).await;
    // A new user replaces the old one while connections are open.
    let another = doc! { "createUser": "another", "pwd": "another-secret", "roles": ["root"] };
    client.database("admin").run_command(another).await.unwrap();
    std::fs::write(&files[1], access_control::as_user(&store, "another", "admin")).unwrap();
    client.database("admin").run_command(doc! { "dropUser": "renewed" }).await.unwrap();
    env.publish_all((2000..3000).map(TestMessage::numbered)).await;
    eventually("all are stored", DEADLINE, async || env.count().await == 3000).await;
    worker.wait_until_ready().await;
    env.assert_all_stored("29 user replaced under load", 3000, &[&worker]).await;
    broker.ctl(&["set_vhost_limits", "-p", "/", "{\"max-connections\": 0}"]);
    let output = env.command().arg("check").output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("connection limit") && output.status.code() == Some(69), "{report}");
}

#[test]
fn unencrypted_connections_to_other_machines_must_be_allowed() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let output = command.arg("config").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (uri, allow) in [
        ("broker.uri=amqp://u:s3cret@broker.example/%2f", "broker.allow_plaintext=true"),
        ("store.uri=mongodb://u:s3cret@db.example/?replicaSet=rs0", "store.allow_plaintext=true"),
        ("broker.management=http://broker.example:15672", "broker.allow_plaintext=true"),
    ] {
        let (code, text) = run(&["--set", uri]);
        assert!(code == Some(78) && text.contains("another machine") && !text.contains("s3cret"), "{text}");
        assert_eq!(run(&["--set", uri, "--set", allow]).0, Some(0));
    }
    let (code, text) = run(&["--set", "broker.management=https://u:s3cret@broker.example"]);
    assert!(code == Some(78) && text.contains("no user name") && !text.contains("s3cret"), "{text}");
    let (code, text) = run(&["--set", "broker.tls_certificate=/x"]);
    assert!(code == Some(78) && text.contains("broker.tls_key"), "{text}");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
    let output = command.args(["run", "--set", "broker.tls_ca=/no/such/file"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/no/such/file"));
}
