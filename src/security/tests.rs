//! TLS over real sockets, with files that change, and a clock that the tests set.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{issue::Authority, *};
use crate::environment::net::{Certified, Io, Listener, RealNet};

const NOW: u64 = 1_795_000_000_000;
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const YEAR_MS: u64 = 365 * DAY_MS;

struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn wall_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn random(&self) -> u128 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// An authority with its directory, and the clock of all its nodes.
struct Place {
    directory: TempDir,
    authority: Authority,
    clock: Arc<SetClock>,
}

impl Place {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let (authority, ca) = Authority::found("test", NOW).unwrap();
        let place = Self { directory, authority, clock: Arc::new(SetClock(NOW.into())) };
        place.write("ca.crt", &ca.cert);
        place.write("tokens.toml", "");
        for id in [1, 2] {
            place.issue_node(&format!("node-{id}"), id);
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn issue_node(&self, name: &str, id: u64) {
        let issued = self.authority.node(id, &["127.0.0.1".into()], NOW, YEAR).unwrap();
        self.write(&format!("{name}.crt"), &issued.cert);
        self.write(&format!("{name}.key"), &issued.key);
    }

    fn issue_client(&self, name: &str) {
        let issued = self.authority.client(&name.replace('-', "/").parse().unwrap(), NOW, YEAR).unwrap();
        self.write(&format!("{name}.crt"), &issued.cert);
        self.write(&format!("{name}.key"), &issued.key);
    }

    fn files(&self, name: &str) -> Tls {
        Tls {
            ca: self.path("ca.crt"),
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            tokens: Some(self.path("tokens.toml")),
            http: false,
        }
    }

    fn try_open(&self, name: &str, node: u64) -> std::result::Result<Arc<Security>, String> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Security::open(&self.files(name), node, &clock).map_err(|fault| fault.to_string())
    }

    fn open(&self, node: u64) -> Arc<Security> {
        self.try_open(&format!("node-{node}"), node).unwrap()
    }

    /// Why a node does not start with these files.
    fn refusal(&self, name: &str, node: u64) -> String {
        self.try_open(name, node).err().expect("the files cannot be used")
    }
}

fn net(security: &Arc<Security>, callers: Callers) -> Arc<dyn Net> {
    let plain: Arc<dyn Net> = Arc::new(RealNet);
    security.net(&plain, callers)
}

async fn listener(security: &Arc<Security>, callers: Callers) -> (Box<dyn Listener>, String) {
    let listener = net(security, callers).listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address().unwrap().to_string();
    (listener, address)
}

/// Sends a byte there and back over a connection that two nodes make, and answers what each end has proven.
async fn meet(caller: &Arc<Security>, called: &Arc<Security>) -> io::Result<(Proof, Proof)> {
    let (mut listener, address) = listener(called, Callers::Peers).await;
    let serve = tokio::spawn(async move {
        let mut io: Io = listener.accept().await?;
        let byte = io.read_u8().await?;
        io.write_u8(byte).await?;
        io.flush().await?;
        Ok::<_, io::Error>(io.proof().clone())
    });
    let met = async {
        let mut io = net(caller, Callers::Peers).connect(&address).await?;
        io.write_u8(7).await?;
        io.flush().await?;
        assert_eq!(io.read_u8().await?, 7);
        Ok::<_, io::Error>(io.proof().clone())
    };
    let met = met.await;
    let Ok(met) = met else {
        serve.abort();
        return Err(met.unwrap_err());
    };
    Ok((met, serve.await.unwrap()?))
}

fn name(proof: &Proof) -> &str {
    match proof {
        Proof::Certified(certified) => &certified.name,
        _ => "",
    }
}

#[tokio::test]
async fn nodes_of_one_authority_know_each_other() {
    let place = Place::new();
    let (one, two) = (place.open(1), place.open(2));
    let (of_called, of_caller) = meet(&one, &two).await.unwrap();
    assert_eq!((name(&of_called), name(&of_caller)), ("node/2", "node/1"));
}

#[tokio::test]
async fn what_is_not_of_the_authority_or_has_expired_is_refused() {
    let (place, other) = (Place::new(), Place::new());
    let (one, stranger) = (place.open(1), other.open(2));
    let error = meet(&one, &stranger).await.unwrap_err().to_string();
    assert!(error.contains("is not signed by a certificate of ca"), "{error}");
    assert!(meet(&stranger, &one).await.is_err());
    // A client's certificate cannot serve, even at a node's address.
    place.issue_client("service-billing");
    let billing = place.refusal("service-billing", 1);
    assert!(billing.contains("the certificate is for service/billing, and this is node/1"), "{billing}");
    let two = place.open(2);
    place.clock.0.store(NOW + YEAR_MS + 1_000, Relaxed);
    let error = meet(&one, &two).await.unwrap_err().to_string();
    assert!(error.contains("has expired"), "{error}");
}

#[tokio::test]
async fn plain_text_is_told_what_is_spoken_here() {
    let place = Place::new();
    let one = place.open(1);
    for (callers, sends, expected) in [
        (Callers::Clients, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &b"\0\0\0\x04"[..]),
        (Callers::Peers, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &b"\0\0\0\x04"[..]),
        (Callers::Watchers, "GET /livez HTTP/1.1\r\n\r\n", &b"HTTP/1.1 400"[..]),
    ] {
        let (mut listener, address) = listener(&one, callers).await;
        let serve = tokio::spawn(async move { listener.accept().await.map(drop) });
        let mut io = RealNet.connect(&address).await.unwrap();
        io.write_all(sends.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{answer:?}");
        assert!(String::from_utf8_lossy(&answer).contains("this address speaks TLS"));
        serve.abort();
    }
}

#[tokio::test]
async fn a_slow_handshake_keeps_nobody_waiting() {
    let place = Place::new();
    let (one, two) = (place.open(1), place.open(2));
    let (mut listener, address) = listener(&two, Callers::Peers).await;
    let _silent = RealNet.connect(&address).await.unwrap();
    let dial = net(&one, Callers::Peers);
    let (accepted, dialled) = tokio::join!(listener.accept(), dial.connect(&address));
    assert_eq!(name(accepted.unwrap().proof()), "node/1");
    assert_eq!(name(dialled.unwrap().proof()), "node/2");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let place = Place::new();
    let other = Place::new();
    let error = place.refusal("node-3", 3);
    assert!(error.contains("cannot read the cert ") && error.contains("node-3.crt"), "{error}");
    assert!(place.refusal("node-2", 1).contains("the certificate is for node/2, and this is node/1"));
    place.write("node-2.key", &fs::read_to_string(place.path("node-1.key")).unwrap());
    let error = place.refusal("node-2", 2);
    assert!(error.contains("the key is not that of the certificate"), "{error}");
    place.write("node-2.crt", &fs::read_to_string(other.path("node-2.crt")).unwrap());
    assert!(place.refusal("node-2", 2).contains("is not signed by a certificate of ca"));
    place.write("node-2.crt", "no PEM");
    assert!(place.refusal("node-2", 2).contains("there is no certificate in cert"));
    place.write("node-1.key", "no PEM");
    assert!(place.refusal("node-1", 1).contains("the key is no PEM"));
    place.issue_node("node-1", 1);
    place.write("tokens.toml", "[[token]]\nid = 3\n");
    let error = place.refusal("node-1", 1);
    assert!(error.contains("tokens.toml:2: invalid type"), "{error}");
    place.write("tokens.toml", "");
    place.clock.0.store(NOW + YEAR_MS + 1_000, Relaxed);
    assert!(place.refusal("node-1", 1).contains("the certificate has expired"));
}

#[tokio::test]
async fn what_changes_is_taken_over_and_what_is_broken_is_not() {
    let place = Place::new();
    let (one, two) = (place.open(1), place.open(2));
    assert_eq!(two.reload(), [], "nothing has changed");

    // The certificate is there before its key: that fits nothing, and the old pair goes on.
    let old_key = fs::read_to_string(place.path("node-2.key")).unwrap();
    place.issue_node("node-2", 2);
    let new_key = fs::read_to_string(place.path("node-2.key")).unwrap();
    place.write("node-2.key", &old_key);
    let Ok([Reloaded::Kept(rule)]): std::result::Result<[Reloaded; 1], _> = two.reload().try_into() else { panic!() };
    assert!(rule.contains("the key is not that of the certificate"), "{rule}");
    assert_eq!(two.reload(), [], "it is said once");
    meet(&one, &two).await.unwrap();
    place.write("node-2.key", &new_key);
    assert_eq!(two.reload(), [Reloaded::Taken("certificates")]);
    meet(&one, &two).await.unwrap();

    // An authority is changed in three steps; at each of them all know each other.
    let (authority, ca) = Authority::found("next", NOW).unwrap();
    let old_ca = fs::read_to_string(place.path("ca.crt")).unwrap();
    let both = |security: &Arc<Security>| security.reload();
    place.write("ca.crt", &format!("{old_ca}{}", ca.cert));
    assert_eq!(both(&one), [Reloaded::Taken("certificates")]);
    meet(&one, &two).await.unwrap();
    assert_eq!(both(&two), [Reloaded::Taken("certificates")]);
    let place = Place { authority, ..place };
    place.issue_node("node-1", 1);
    assert_eq!(both(&one), [Reloaded::Taken("certificates")]);
    meet(&one, &two).await.unwrap();
    meet(&two, &one).await.unwrap();
    place.issue_node("node-2", 2);
    place.write("ca.crt", &ca.cert);
    assert_eq!(both(&two), [Reloaded::Taken("certificates")]);
    meet(&one, &two).await.unwrap();
    assert_eq!(both(&one), [Reloaded::Taken("certificates")]);
    meet(&two, &one).await.unwrap();
}

fn with_token(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

#[track_caller]
fn stranger(answer: Result<Principal>, expected: &str) {
    match answer {
        Err(Error::Unauthenticated(why)) => assert!(why.contains(expected), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn tokens_count_from_when_they_are_read_until_they_end() {
    let place = Place::new();
    let one = place.open(1);
    let mut tokens = Tokens::default();
    let billing = tokens.add(Principal::Service("billing".into()), NOW, Some(NOW + 60_000)).unwrap();
    let ada = tokens.add(Principal::Person("ada".into()), NOW, None).unwrap();
    let who = |token: &str| one.authenticate(&Proof::Encrypted, &with_token(token));
    stranger(who(&billing), "unknown");
    place.write("tokens.toml", &tokens.text());
    assert_eq!(one.reload(), [Reloaded::Taken("tokens")]);
    assert_eq!(who(&billing), Ok(Principal::Service("billing".into())));
    assert_eq!(who(&ada), Ok(Principal::Person("ada".into())));

    place.write("tokens.toml", "no tokens");
    assert!(matches!(one.reload().as_slice(), [Reloaded::Kept(rule)] if rule.contains("tokens.toml:1")));
    assert_eq!(who(&billing), Ok(Principal::Service("billing".into())), "the old list goes on");
    fs::remove_file(place.path("tokens.toml")).unwrap();
    assert!(matches!(one.reload().as_slice(), [Reloaded::Kept(rule)] if rule.contains("cannot read the tokens")));
    assert!(who(&billing).is_ok());

    place.clock.0.store(NOW + 60_000, Relaxed);
    stranger(who(&billing), "has expired, on 2026-11-18T");
    let id = tokens.iter().find(|token| token.expires_ms.is_none()).unwrap().id.clone();
    tokens.revoke(&id).unwrap();
    place.write("tokens.toml", &tokens.text());
    assert_eq!(one.reload(), [Reloaded::Taken("tokens")]);
    stranger(who(&ada), "unknown here, or was revoked");
}

#[test]
fn who_calls_is_said_by_token_or_certificate_and_by_nothing_else() {
    let place = Place::new();
    let one = place.open(1);
    let of = |name: &str| Proof::Certified(Arc::new(Certified { name: name.into(), until_ms: NOW + 1 }));
    let none = HeaderMap::new();
    assert_eq!(one.authenticate(&of("service/billing"), &none), Ok(Principal::Service("billing".into())));
    assert_eq!(one.authenticate(&of("node/2"), &none), Ok(Principal::Node(2)));
    stranger(one.authenticate(&of(""), &none), "names nobody");
    stranger(one.authenticate(&of("root/x"), &none), "is no principal");
    stranger(one.authenticate(&Proof::Encrypted, &none), "neither a token nor a certificate");
    stranger(one.authenticate(&Proof::Plain, &with_token("x")), "TLS only");
    // What is given counts: a wrong token is not made good by a certificate.
    stranger(one.authenticate(&of("service/billing"), &with_token("x")), "unknown");
    let mut twice = with_token("x");
    twice.append(AUTHORIZATION, "Bearer y".parse().unwrap());
    for headers in [twice, HeaderMap::from_iter([(AUTHORIZATION, "Basic eDp5".parse().unwrap())])] {
        stranger(one.authenticate(&of("service/billing"), &headers), "must be: Bearer TOKEN");
    }
    place.clock.0.store(NOW + 1, Relaxed);
    stranger(one.authenticate(&of("service/billing"), &none), "has expired");
}
