//! TLS and mutual TLS to both servers, with certificates that the test makes; what is refused, and in which words. Row 29
//! of the table in docs/reliability.md.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};

use crate::harness::{Bed, Kind, Private, SHORT, SOON, Sent, eventually};

/// Certificates and keys in files.
struct Papers(tempfile::TempDir);

impl Papers {
    /// A CA with a certificate for `127.0.0.1` that expired or did not, and one for the client; a CA that signed nothing.
    fn new() -> Self {
        let papers = Papers(tempfile::tempdir().unwrap());
        let authority = papers.authority("ca");
        papers.authority("other-ca");
        papers.signed("server", "127.0.0.1", &authority, 2099);
        papers.signed("expired", "127.0.0.1", &authority, 2001);
        papers.signed("elsewhere", "broker.example", &authority, 2099);
        papers.signed("client", "ticketlog", &authority, 2099);
        papers
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

    fn signed(&self, name: &str, host: &str, by: &CertifiedIssuer<'static, KeyPair>, until: i32) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, by).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.both")), certificate.pem() + &key.serialize_pem()).unwrap();
    }

    /// A broker with a TLS port beside the plain one, which asks for a certificate of the CA.
    fn broker(&self, certificate: &str) -> Private {
        Private::prepared(Kind::Rabbitmq, |directory, port| {
            let [ca, own, key] = [
                self.text("ca.pem"),
                self.text(&format!("{certificate}.pem")),
                self.text(&format!("{certificate}.key")),
            ];
            let lines = [
                format!("listeners.ssl.default = 127.0.0.1:{}", port + 3),
                format!("ssl_options.cacertfile = {ca}\nssl_options.certfile = {own}\nssl_options.keyfile = {key}"),
                "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n".to_owned(),
            ];
            std::fs::write(directory.join("extra.conf"), lines.join("\n")).unwrap();
        })
    }

    /// A MongoDB that takes TLS from clients with a certificate of the CA.
    fn store(&self) -> Private {
        Private::prepared(Kind::Mongodb, |directory, _| {
            arguments(directory, &self.text("server.both"), &self.text("ca.pem"))
        })
    }
}

fn arguments(directory: &Path, own: &str, ca: &str) {
    let lines = ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", own, "--tlsCAFile", ca].join("\n");
    std::fs::write(directory.join("arguments"), lines).unwrap();
}

fn encrypted(broker: &Private) -> String {
    format!("amqps://guest:guest@127.0.0.1:{}/%2f", broker.port() + 3)
}

#[tokio::test]
async fn row_29_mutual_tls_to_both_servers() {
    let papers = Papers::new();
    let (broker, store) = (papers.broker("server"), papers.store());
    let bed = Bed::on(&broker, &store).await;
    let (amqps, ca, own, key) =
        (encrypted(&broker), papers.text("ca.pem"), papers.text("client.pem"), papers.text("client.key"));
    let mongodb =
        format!("{}&tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={}", bed.store_uri, papers.text("client.both"));
    let mut settings = SHORT.to_vec();
    settings.extend([
        ("BROKER__URI", amqps.as_str()),
        ("BROKER__TLS_CA", ca.as_str()),
        ("BROKER__TLS_CERTIFICATE", own.as_str()),
        ("BROKER__TLS_KEY", key.as_str()),
        ("STORE__URI", mongodb.as_str()),
    ]);
    let mut worker = bed.worker_with(&settings).await;
    bed.publish_all((0..500).map(Sent::numbered)).await;
    bed.publish(&Sent::body("nonsense")).await;
    worker.has_settled(501).await;
    worker.ready().await;
    assert_eq!(bed.take_all(&bed.dead_queue()).await.len(), 1);
    bed.safe("29 mutual TLS to both servers", 500, &[&worker]).await;
    worker.stop().await;
    // Without a certificate of ours, with a CA that signed nothing, and in plain where TLS is spoken: refused, for good.
    for (change, said) in [
        (("BROKER__TLS_CA", papers.text("other-ca.pem")), "broker: no TLS with the broker"),
        (("BROKER__URI", amqps.replacen("127.0.0.1", "localhost", 1)), "broker: no TLS with the broker"),
        (("BROKER__URI", amqps.replacen("amqps", "amqp", 1)), "broker:"),
        (("BROKER__URI", bed.broker_uri.replacen("amqp", "amqps", 1)), "broker: no TLS with the broker"),
        (("STORE__URI", mongodb.replacen("/ca.pem", "/other-ca.pem", 1)), "store:"),
        (("STORE__URI", mongodb.split("&tlsCertificateKeyFile").next().unwrap().to_owned()), "store:"),
    ] {
        let mut changed = settings.clone();
        changed.push((change.0, change.1.as_str()));
        let mut worker = bed.worker_with(&changed).await;
        let refused = async || {
            let (code, text) = worker.get("/readyz");
            code == 503 && text.contains(said) && !text.contains(&format!("{said} starting"))
        };
        eventually(&format!("{change:?} is refused"), SOON, refused).await;
        assert!(!worker.log().contains("guest:guest"));
        worker.stop().await;
    }
}

#[tokio::test]
async fn row_29_an_expired_certificate_and_one_for_another_host_are_refused() {
    let papers = Papers::new();
    for certificate in ["expired", "elsewhere"] {
        let broker = papers.broker(certificate);
        let uri = format!("broker.uri={}", encrypted(&broker));
        let ca = format!("broker.tls_ca={}", papers.text("ca.pem"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let said = command.args(["setup", "--set", &uri, "--set", &ca]).output().unwrap();
        let text = String::from_utf8(said.stderr).unwrap();
        assert!(said.status.code() == Some(69) && text.contains("no TLS with the broker"), "{certificate}: {text}");
    }
}

#[test]
fn passwords_do_not_travel_in_the_open_unless_allowed() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
        let said = command.arg("config").args(arguments).output().unwrap();
        (said.status.code(), String::from_utf8(said.stderr).unwrap())
    };
    for (uri, allow) in [
        ("broker.uri=amqp://u:s3cret@broker.example/%2f", "broker.allow_plaintext=true"),
        ("store.uri=mongodb://u:s3cret@db.example/?replicaSet=rs0", "store.allow_plaintext=true"),
    ] {
        let (code, text) = run(&["--set", uri]);
        assert!(code == Some(78) && text.contains("another machine") && !text.contains("s3cret"), "{text}");
        assert_eq!(run(&["--set", uri, "--set", allow]).0, Some(0));
    }
    let (code, text) = run(&["--set", "broker.tls_certificate=/x"]);
    assert!(code == Some(78) && text.contains("broker.tls_key"), "{text}");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketlog"));
    let said = command.args(["run", "--set", "broker.tls_ca=/no/such/file"]).output().unwrap();
    assert_eq!(said.status.code(), Some(78));
    assert!(String::from_utf8(said.stderr).unwrap().contains("/no/such/file"));
}
