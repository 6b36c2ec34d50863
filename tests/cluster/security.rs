//! Nodes with TLS: made by `meshstore security`, asked by the command line, while their files change.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use meshstore::{
    Client, Error,
    client::{Keys, Target, Tls},
    proto::v1::{IdentifyRequest, peer_client::PeerClient},
};
use rustix::process::Signal;
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use crate::harness::{Cluster, Settings, binary, until};

/// A cluster with TLS, and the directory of its authority.
struct Secured {
    cluster: Cluster,
    tls: PathBuf,
}

/// Runs the command line: exit code, standard output, standard error.
fn run(words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MESHSTORE_")) {
        command.env_remove(name);
    }
    let output = command.args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn done(words: &[&str]) -> String {
    let (code, stdout, stderr) = run(words);
    assert_eq!(code, 0, "{words:?}: {stderr}");
    stdout
}

fn file(directory: &Path, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}

impl Secured {
    /// Lays out a cluster; none of its nodes runs yet.
    fn new(count: u64) -> Self {
        let cluster = Cluster::new(count, Settings::default());
        let toml = cluster.nodes[0].toml.clone();
        let tls = toml.parent().unwrap().join("tls");
        done(&["security", "init", tls.to_str().unwrap(), "--config", toml.to_str().unwrap()]);
        let mut text = OpenOptions::new().append(true).open(&toml).unwrap();
        text.write_all(
            b"[tls]\nca = \"tls/ca.crt\"\ncert = \"tls/node-{node}.crt\"\nkey = \"tls/node-{node}.key\"\n\
              [auth]\ntokens = \"tls/tokens.toml\"\n",
        )
        .unwrap();
        Self { cluster, tls }
    }

    async fn start(count: u64) -> Self {
        let mut secured = Self::new(count);
        secured.cluster.start_all().await;
        secured
    }

    /// Writes a value, with these flags before it.
    fn put(&self, flags: &[&str]) -> (i32, String, String) {
        let endpoints = self.cluster.endpoints().join(",");
        let ask = ["--endpoints", &endpoints, "--timeout", "5s", "state", "put", "key", "value"];
        run(&[flags, &ask].concat())
    }

    fn ca(&self) -> String {
        file(&self.tls, "ca.crt")
    }

    /// A file with this token.
    fn token_file(&self, name: &str, token: &str) -> String {
        fs::write(self.tls.join(name), token).unwrap();
        file(&self.tls, name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_known_is_served_and_nobody_else() {
    let secured = Secured::start(3).await;
    let other = Secured::new(1);
    let (ca, admin) = (secured.ca(), file(&secured.tls, "admin.token"));
    let (cert, key) = (file(&secured.tls, "admin.crt"), file(&secured.tls, "admin.key"));
    let (wrong_ca, wrong_token) = (other.ca(), file(&other.tls, "admin.token"));
    let (wrong_cert, wrong_key) = (file(&other.tls, "admin.crt"), file(&other.tls, "admin.key"));

    for known in [&["--ca", &ca, "--token-file", &admin][..], &["--ca", &ca, "--cert", &cert, "--key", &key]] {
        let (code, _, stderr) = secured.put(known);
        assert_eq!((code, stderr.as_str()), (0, ""), "{known:?}");
    }
    for (flags, code, expected) in [
        (&[][..], 2, "the node speaks TLS: give the certificate of the cluster's authority (--ca)"),
        (&["--ca", &ca], 5, "neither a token nor a certificate"),
        (&["--ca", &ca, "--token-file", &wrong_token], 5, "the token is unknown here, or was revoked"),
        (&["--ca", &ca, "--cert", &cert, "--key", &wrong_key], 2, "certificate and key must belong together"),
        (&["--ca", &wrong_ca, "--token-file", &admin], 4, "is not signed by the given authority (--ca)"),
    ] {
        let (found, stdout, stderr) = secured.put(flags);
        assert_eq!((found, stdout.as_str()), (code, ""), "{flags:?}: {stderr}");
        assert!(stderr.contains(expected), "{flags:?}: {stderr}");
    }
    // The node ends the connection while the client takes it for open already, so what the client learns of the reason
    // depends on which of the two is faster.
    let (code, stdout, stderr) = secured.put(&["--ca", &ca, "--cert", &wrong_cert, "--key", &wrong_key]);
    assert!(code != 0 && stdout.is_empty(), "{stderr}");
    let endpoint = secured.cluster.nodes[0].client.replace("127.0.0.1", "localhost");
    let (code, _, stderr) =
        run(&["--ca", &ca, "--token-file", &admin, "--timeout", "2s", "--endpoints", &endpoint, "state", "get", "key"]);
    assert!(code == 4 && stderr.contains("is not for the host that was called"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_no_answer_at_a_peer_s_address() {
    let secured = Secured::start(1).await;
    let read = |name: &str| fs::read(secured.tls.join(name)).unwrap();
    let ask = async |tls: ClientTlsConfig| {
        let address = format!("https://{}", secured.cluster.nodes[0].peer);
        let tls = tls.ca_certificate(Certificate::from_pem(read("ca.crt")));
        let channel = Channel::from_shared(address).unwrap().tls_config(tls).unwrap().connect_lazy();
        PeerClient::new(channel).identify(IdentifyRequest {}).await
    };
    let of = |name: &str| {
        ClientTlsConfig::new().identity(Identity::from_pem(read(&format!("{name}.crt")), read(&format!("{name}.key"))))
    };
    assert_eq!(ask(of("node-1")).await.unwrap().into_inner().node_id, 1);
    let refused = ask(of("admin")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("the caller's certificate is for person/admin"), "{refused}");
    assert!(ask(ClientTlsConfig::new()).await.is_err(), "without a certificate there is no connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_tokens_change_while_the_nodes_run() {
    let mut secured = Secured::start(3).await;
    let (ca, tls) = (secured.ca(), secured.tls.to_str().unwrap().to_owned());
    let token = done(&["security", "token", "add", &tls, "--service", "billing"]);
    let billing = secured.token_file("billing.token", &token);
    let flags = ["--ca", &ca, "--token-file", &billing];
    until("the new token to count on all nodes", async || {
        secured.cluster.nodes.iter().all(|node| node.log().contains("tokens were read again")).then_some(())
    })
    .await;
    let (code, _, stderr) = secured.put(&flags);
    assert_eq!((code, stderr.as_str()), (0, ""));

    // A broken file is not taken over, and said.
    let key = secured.tls.join("node-1.key");
    let old = fs::read(&key).unwrap();
    fs::write(&key, "broken").unwrap();
    secured.cluster.node(1).signal(Signal::HUP);
    until("the broken key to be told of", async || {
        secured.cluster.nodes[0].log().contains("what was read before stays in use: the key is no PEM").then_some(())
    })
    .await;
    let (code, _, stderr) = secured.put(&flags);
    assert_eq!((code, stderr.as_str()), (0, ""));
    fs::write(&key, old).unwrap();

    for id in 1..=3 {
        done(&["security", "cert", &tls, "--node", &format!("{id}=127.0.0.1,localhost"), "--replace"]);
        secured.cluster.node(id).signal(Signal::HUP);
    }
    // The new certificates are for one more host; a new connection shows that they are in use.
    for node in &secured.cluster.nodes {
        let endpoint = node.client.replace("127.0.0.1", "localhost");
        until("the new certificate to be shown", async || {
            let ask = ["--endpoints", &endpoint, "--timeout", "2s", "state", "get", "key"];
            (run(&[&flags[..], &ask].concat()).0 == 0).then_some(())
        })
        .await;
    }
    // With new connections between the nodes, too: a node that is started again finds the others.
    secured.cluster.node(2).kill();
    secured.cluster.start_all().await;
    let (code, _, stderr) = secured.put(&flags);
    assert_eq!((code, stderr.as_str()), (0, ""));

    // What it has begun ends with it.
    let endpoints = secured.cluster.nodes.iter().map(|node| node.client.clone());
    let authority = fs::read_to_string(&ca).unwrap();
    let client = Client::builder().endpoints(endpoints).tls(Tls::new(authority)).token(token.trim());
    let watching = client.connect().await.unwrap().watch(Target::State(Keys::All));
    let mut watch = watching.progress(Duration::from_millis(100)).start().await.unwrap();
    let id = token.split('_').nth(1).unwrap();
    done(&["security", "token", "revoke", &tls, id]);
    until("the token to count no longer", async || {
        let (code, _, stderr) = secured.put(&flags);
        (code == 5 && stderr.contains("the token is unknown here, or was revoked")).then_some(())
    })
    .await;
    let ended = async {
        loop {
            if let Err(error) = watch.next().await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends");
    assert!(matches!(error, Error::Unauthenticated(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_keep_a_node_from_starting() {
    let mut secured = Secured::new(1);
    fs::remove_file(secured.tls.join("node-1.key")).unwrap();
    let said = secured.cluster.nodes[0].refusal(1).await;
    assert!(said.starts_with("TLS cannot be used: cannot read the key ") && said.contains("node-1.key"), "{said}");
    assert!(!secured.cluster.nodes[0].data.exists(), "nothing was touched");
}
