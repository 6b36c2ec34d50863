//! What arrives of a message's content: taken if, and only if, it is what was announced.

use std::{collections::BTreeMap, sync::OnceLock};

use bytes::Bytes;
use meshstore::{
    layers::mesh::large::{Assembled, Assembly},
    limits,
    model::mesh::{Announced, Chunk, LargeContent, Message},
    proto::v1,
};

use super::{
    super::{
        input::Input,
        wire::{decode, sent},
    },
    refused,
};

/// A little more than a chunk may have.
fn data() -> &'static Bytes {
    static DATA: OnceLock<Bytes> = OnceLock::new();
    DATA.get_or_init(|| (0..=limits::MESSAGE_CHUNK_BYTES).map(|at| (at % 251) as u8).collect())
}

pub(super) fn run(input: &mut Input<'_>) {
    let announced = announced(input);
    assert_eq!(Announced::try_from(sent(&v1::LargeMessageHeader::from(announced.clone()))), Ok(announced.clone()));
    let begun = Assembly::begin(announced.clone());
    assert_eq!(begun.is_ok(), is_sound(&announced), "{announced:?}: {begun:?}");
    let mut assembly = match begun {
        Ok(assembly) => assembly,
        Err(error) => return refused(&error),
    };
    assert_eq!(assembly.keeps(), announced.size <= limits::VALUE_BYTES as u64);
    let mut arrived: BTreeMap<u32, Bytes> = BTreeMap::new();
    while !input.is_empty() && arrived.len() < 24 {
        let Some(chunk) = chunk(input, &announced, &arrived) else { continue };
        let bytes: usize = arrived.values().map(Bytes::len).sum::<usize>() + chunk.data.len();
        let fits = chunk.number < announced.chunks
            && !arrived.contains_key(&chunk.number)
            && (1..=limits::MESSAGE_CHUNK_BYTES).contains(&chunk.data.len())
            && chunk.crc32c == crc32c::crc32c(&chunk.data)
            && bytes as u64 <= announced.size;
        match assembly.take(chunk.clone()) {
            Ok(taken) => {
                assert!(fits && taken == chunk);
                arrived.insert(chunk.number, chunk.data);
            }
            Err(error) => {
                assert!(!fits, "{error:?}");
                return refused(&error);
            }
        }
    }
    end(assembly, announced, &arrived);
}

fn end(assembly: Assembly, announced: Announced, arrived: &BTreeMap<u32, Bytes>) {
    let Announced { message, size, chunks, crc32c: expected } = announced;
    let bytes: usize = arrived.values().map(Bytes::len).sum();
    let sum = arrived.values().fold(0, |sum, data| crc32c::crc32c_append(sum, data));
    let whole =
        arrived.len() == chunks as usize && bytes as u64 == size && expected.is_none_or(|expected| expected == sum);
    match assembly.end() {
        Ok(Assembled::Whole(found)) => {
            assert!(whole && bytes <= limits::VALUE_BYTES);
            let content = arrived.values().flatten().copied().collect();
            assert!(found == Message { content, ..message }, "another message than was sent");
        }
        Ok(Assembled::Upload(found, content)) => {
            assert!(whole && bytes > limits::VALUE_BYTES);
            assert_eq!((found, content), (message, LargeContent { size, chunks, crc32c: sum }));
        }
        Err(error) => {
            assert!(!whole, "{error:?}");
            refused(&error);
        }
    }
}

fn is_sound(announced: &Announced) -> bool {
    let Announced { message: Message { id, from, to, content, large, .. }, size, chunks, .. } = announced;
    let named = [id, from, to].into_iter().all(|name| (1..=limits::ID_BYTES).contains(&name.len()));
    let chunks = u64::from(*chunks);
    let (least, most) = (size.div_ceil(limits::MESSAGE_CHUNK_BYTES as u64), (*size).min(limits::MESSAGE_CHUNKS as u64));
    named
        && content.is_empty()
        && large.is_none()
        && *size <= limits::LARGE_MESSAGE_BYTES as u64
        && (least..=most).contains(&chunks)
}

fn announced(input: &mut Input<'_>) -> Announced {
    let shape = input.byte();
    if shape == 255 {
        let header: Option<v1::LargeMessageHeader> = decode(input.bytes(80));
        if let Some(Ok(announced)) = header.map(Announced::try_from) {
            return announced;
        }
    }
    let mib = limits::MESSAGE_CHUNK_BYTES as u64;
    let sizes = [0, 1, 5, 300, mib - 1, mib, mib + 1, 2 * mib, 3 * mib + 5, 64 * mib, 64 * mib + 1];
    let size = if shape & 64 == 64 { input.number() } else { sizes[usize::from(shape & 63) % sizes.len()] };
    let chunks = match input.byte() {
        choice @ 0..=159 => u32::from(choice % 6),
        choice @ 160..=223 => u32::from(choice % 4) + u32::try_from(size / mib).unwrap_or(u32::MAX - 3),
        224..=239 => u32::from(input.byte()) << 5,
        240..=247 => 4_097,
        _ => u32::MAX,
    };
    let crc32c = (shape & 128 == 128).then(|| u32::from_le_bytes(std::array::from_fn(|_| input.byte())));
    let message = Message { id: "i".into(), from: "f".into(), to: "t".into(), ..Message::default() };
    Announced { message, size, chunks, crc32c }
}

/// A chunk: mostly the one that is missing first, with about its share.
fn chunk(input: &mut Input<'_>, announced: &Announced, arrived: &BTreeMap<u32, Bytes>) -> Option<Chunk> {
    let shape = input.byte();
    if shape >= 240 {
        let frame: v1::MessageChunk = decode(input.bytes(40))?;
        return Some(Chunk::from(frame));
    }
    let missing = (0..announced.chunks).find(|number| !arrived.contains_key(number));
    let number = match shape >> 5 {
        0..=5 => missing.unwrap_or(announced.chunks),
        _ => u32::from(input.byte()),
    };
    let left = announced.size - arrived.values().map(Bytes::len).sum::<usize>() as u64;
    let last = arrived.len() + 1 == announced.chunks as usize;
    let length = match shape & 7 {
        0..=3 if last => left.min(data().len() as u64) as usize,
        0 | 1 => (left / u64::from(announced.chunks.max(1))).min(data().len() as u64) as usize,
        2 => limits::MESSAGE_CHUNK_BYTES,
        3 => data().len(),
        4 => 0,
        5 => 1,
        _ => usize::from(input.byte()),
    };
    let data = data().slice(..length);
    let crc32c = crc32c::crc32c(&data) ^ u32::from(shape & 31 == 31);
    let chunk = Chunk { number, data, crc32c };
    if length < 300 {
        assert_eq!(Chunk::from(sent(&v1::MessageChunk::from(chunk.clone()))), chunk);
    }
    Some(chunk)
}
