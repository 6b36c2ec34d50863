//! Frames, as far as they are looked into: a byte of what a TCP segment carries is damaged so that its checksum holds.

use rand::{Rng, rngs::StdRng};

const ETHERNET: usize = 14;

/// Whether it carries IPv4; what else there is (ARP) finds addresses, and is left alone.
pub fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0])
}

/// Damages one byte; whether there was one.
pub fn damage(frame: &mut [u8], rng: &mut StdRng) -> bool {
    let Some((tcp, payload, end)) = segment(frame) else { return false };
    if payload >= end {
        return false;
    }
    let at = rng.random_range(payload..end);
    let word = at - (at - tcp) % 2;
    // The last byte of an odd segment is summed up as if a zero followed.
    let read = |frame: &[u8]| {
        let low = if word + 1 < end { frame[word + 1] } else { 0 };
        u16::from_be_bytes([frame[word], low])
    };
    let before = read(frame);
    frame[at] ^= 1 << rng.random_range(0..8);
    let after = read(frame);
    let sum = u16::from_be_bytes([frame[tcp + 16], frame[tcp + 17]]);
    // RFC 1624: the new sum from the old one and the word that changed.
    let mut wide = u32::from(!sum) + u32::from(!before) + u32::from(after);
    while wide > 0xFFFF {
        wide = (wide & 0xFFFF) + (wide >> 16);
    }
    frame[tcp + 16..tcp + 18].copy_from_slice(&(!(wide as u16)).to_be_bytes());
    true
}

/// Where the TCP header, its payload, and the end of that are.
fn segment(frame: &[u8]) -> Option<(usize, usize, usize)> {
    let ip = frame.get(ETHERNET..)?;
    if !is_ipv4(frame) || *ip.get(9)? != 6 {
        return None;
    }
    let tcp = ETHERNET + usize::from(ip[0] & 15) * 4;
    let end = ETHERNET + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let payload = tcp + usize::from(*frame.get(tcp + 12)? >> 4) * 4;
    (end <= frame.len() && tcp + 18 <= end).then_some((tcp, payload, end))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// The sum over a TCP segment with its pseudo header; 0xFFFF if its checksum is right.
    fn sum(frame: &[u8]) -> u16 {
        let (tcp, _, end) = segment(frame).unwrap();
        let mut bytes = frame[ETHERNET + 12..ETHERNET + 20].to_vec();
        bytes.extend([0, 6]);
        bytes.extend(((end - tcp) as u16).to_be_bytes());
        bytes.extend(&frame[tcp..end]);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let total: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        ((total & 0xFFFF) + (total >> 16)) as u16
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((40 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([1, 2, 3, 4, 0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, 16, 1, 0, 0, 0, 0, 0]);
        frame.extend(payload);
        let checksum = !sum(&frame);
        frame[ETHERNET + 36..ETHERNET + 38].copy_from_slice(&checksum.to_be_bytes());
        // Ethernet pads short frames.
        frame.resize(frame.len().max(60), 0);
        frame
    }

    #[test]
    fn the_checksum_holds_after_damage() {
        let mut rng = StdRng::seed_from_u64(1);
        for length in 1..200 {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let whole = frame(&payload);
            assert_eq!(sum(&whole), 0xFFFF);
            let mut damaged = whole.clone();
            assert!(damage(&mut damaged, &mut rng));
            assert_eq!(sum(&damaged), 0xFFFF, "{length} bytes");
            let changed = (0..whole.len()).filter(|at| whole[*at] != damaged[*at] && *at > ETHERNET + 37).count();
            assert_eq!(changed, 1);
        }
        assert!(!damage(&mut frame(&[]), &mut rng));
        assert!(!damage(&mut [0; 60], &mut rng));
    }
}
