//! A connection that damages what it carries.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::*;

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
/// So many calls may fail before one has to be answered: the damaged one, and one that meets the end of its connection.
const LOST: usize = 2;

/// Connections to a node, of which the first flips one bit in its first block of headers.
struct Damaging {
    address: String,
    /// Bytes of that block, once it was sent.
    length: watch::Receiver<usize>,
    _connections: JoinSet<()>,
}

impl Damaging {
    /// `at`: in which byte the bit is.
    async fn new(node: &FakeNode, at: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sent, length) = watch::channel(0);
        let (to, mut connections) = (node.address.clone(), JoinSet::new());
        connections.spawn(async move {
            let mut carried = JoinSet::new();
            for number in 0.. {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(&to).await.unwrap();
                carried.spawn(carry(near, far, (number == 0).then_some((at, sent.clone()))));
            }
        });
        Self { address, length, _connections: connections }
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream, damage: Option<(usize, watch::Sender<usize>)>) {
    if let Some((at, sent)) = damage {
        let mut preface = [0; PREFACE_BYTES];
        near.read_exact(&mut preface).await.unwrap();
        far.write_all(&preface).await.unwrap();
        loop {
            let mut head = [0; FRAME_HEAD_BYTES];
            near.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            near.read_exact(&mut payload).await.unwrap();
            let is_headers = head[3] == HEADERS;
            if is_headers && let Some(byte) = payload.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
            far.write_all(&[&head[..], &payload].concat()).await.unwrap();
            if is_headers {
                sent.send_replace(payload.len());
                break;
            }
        }
    }
    // Either end may break it off.
    let _ = copy_bidirectional(&mut near, &mut far).await;
}

/// Wherever the first headers of a connection are damaged, which both ends keep in tables: later calls do not suffer from it.
#[tokio::test]
async fn a_connection_whose_tables_of_headers_were_damaged_is_let_go() {
    let node = FakeNode::second().await;
    node.standing.index.store(42, Ordering::SeqCst);
    let (mut at, mut spoiled) = (0, 0);
    loop {
        let damaging = Damaging::new(&node, at).await;
        let member = Member { peer_address: damaging.address.clone(), ..node.member() };
        let peers = peers(first());
        let mut peer = PeerNetwork::<Scripted>::new(&Environment::real(), peers.clone()).new_client(2, &member).await;
        let mut failed = Vec::new();
        while let Err(error) = peer.append_entries(append_of(vec![]), option()).await {
            failed.push(error.to_string());
            assert!(failed.len() <= LOST, "byte {at}: {failed:#?}");
        }
        assert_eq!(peers.read_index(2, &member, Duration::from_secs(20)).await, Ok(42), "byte {at}");
        spoiled += usize::from(!failed.is_empty());
        at += 1;
        if at >= *damaging.length.borrow() {
            break;
        }
    }
    assert!(at > 100 && spoiled > at / 2, "{spoiled} of {at} damages were felt");
}
