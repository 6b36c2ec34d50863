//! Damage is a fault that names file and offset; a torn end is cut; nothing that was cut comes back.

use meshstore::{
    error::Fault,
    raft::types::StoredVote,
    storage::codec::{self, Kind},
};

use super::{SMALL, Stepped, entries, entry, segments};
use crate::support::sim_disk::{Loss, PAGE, SimDisk};

/// A log of several segments, closed, and its indexes.
fn closed() -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new(1);
    let mut log = Stepped::open(&disk, SMALL).unwrap();
    let handle = log.log.clone();
    log.finish(handle.save_vote(StoredVote { term: 1, node: 2, committed: true })).unwrap();
    for index in 0..12 {
        log.append(vec![entry(1, index, 100 + 60 * index as usize)]).unwrap();
        log.settle().unwrap();
    }
    log.log.truncate_after(log.log.position_at(10)).unwrap();
    log.log.save_committed(log.log.position_at(8)).unwrap();
    log.append(entries(2, 11..14, 20)).unwrap();
    log.close().unwrap();
    (disk, (0..14).collect())
}

fn open(disk: &SimDisk) -> Result<Vec<u64>, Fault> {
    Stepped::open(disk, SMALL).map(|log| log.indexes())
}

/// Where the last byte is that was written.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_a_fault_that_names_the_file() {
    let (disk, indexes) = closed();
    let segments = segments(&disk);
    assert_eq!(segments.len(), 2);
    assert_eq!(open(&disk.fork()).unwrap(), indexes);
    let mut silent = 0;
    for path in &segments {
        let length = written(&disk.bytes(path));
        for offset in 0..length {
            let copy = disk.fork();
            copy.flip_bit(path, offset as u64);
            match open(&copy) {
                Ok(found) => {
                    // Only in the zeros in front of a header that must not cross a sector.
                    assert_eq!(found, indexes);
                    assert_eq!(disk.bytes(path)[offset], 0, "at {offset}");
                    silent += 1;
                }
                Err(fault) => {
                    let fault = fault.to_string();
                    assert!(fault.contains(path.to_str().unwrap()), "{fault}");
                    let named = fault.split("offset ").nth(1).and_then(|rest| rest.split(':').next()).unwrap();
                    assert!(named.parse::<usize>().unwrap() <= offset, "flipped {offset}: {fault}");
                }
            }
        }
    }
    assert!(silent < 5 * 69, "{silent} flips were not noticed");
}

#[test]
fn a_flipped_bit_in_the_last_batch_is_a_fault_even_before_a_marker_stands_behind_it() {
    let disk = SimDisk::new(1);
    let mut log = Stepped::open(&disk, SMALL).unwrap();
    log.append(entries(1, 0..3, 50)).unwrap();
    log.settle().unwrap();
    log.append(entries(1, 4..5, 50)).unwrap_err();
    log.append(vec![entry(1, 3, 0), entry(1, 4, 70)]).unwrap();
    let before = written(&disk.bytes(&segments(&disk)[0]));
    log.settle().unwrap();
    drop(log);
    let path = &segments(&disk)[0];
    let length = written(&disk.bytes(path));
    for offset in before as u64..length as u64 {
        let copy = disk.fork();
        copy.flip_bit(path, offset);
        match open(&copy) {
            Err(fault) => assert!(fault.to_string().contains("damaged at offset"), "{fault}"),
            Ok(found) => assert_eq!((found, disk.bytes(path)[offset as usize]), ((0..5).collect(), 0)),
        }
    }
}

#[test]
fn a_lost_sector_of_the_last_batch_is_a_torn_end_and_of_any_other_damage() {
    let disk = SimDisk::new(1);
    let mut log = Stepped::open(&disk, super::Options { segment_bytes: 1 << 16, ..SMALL }).unwrap();
    let mut ends = Vec::new();
    for index in 0..4 {
        log.append(vec![entry(1, index, 1301)]).unwrap();
        log.settle().unwrap();
        ends.push(written(&disk.bytes(&segments(&disk)[0])));
    }
    drop(log);
    let path = &segments(&disk)[0];
    for sector in 1..ends[3] / PAGE {
        let copy = disk.fork();
        copy.edit(path, |bytes| bytes[sector * PAGE..(sector + 1) * PAGE].fill(0));
        if (sector + 1) * PAGE <= ends[2] || sector * PAGE < ends[2] {
            let fault = open(&copy).unwrap_err().to_string();
            assert!(fault.contains("damaged at offset"), "sector {sector}: {fault}");
        } else {
            assert_eq!(open(&copy).unwrap(), [0, 1, 2], "sector {sector}");
            // What was cut is gone, also the parts of it that could still be read.
            assert_eq!(written(&copy.bytes(path)), ends[2]);
        }
    }
}

#[test]
fn what_was_cut_never_comes_back() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut log = Stepped::open(&disk, SMALL).unwrap();
        log.append(entries(1, 0..2, 300)).unwrap();
        log.settle().unwrap();
        // Torn while it is written: the same bytes may be written at the same place later.
        disk.fail_at(2);
        log.append(entries(1, 2..5, 300)).unwrap();
        log.settle().unwrap_err();
        drop(log);
        disk.set_loss(Loss::Torn);
        disk.crash();
        let mut log = Stepped::open(&disk, SMALL).unwrap();
        let found = log.indexes();
        assert!(found == [0, 1] || found == [0, 1, 2, 3, 4], "{found:?}");
        log.log.truncate_after(log.log.position_at(1)).unwrap();
        let told = log.append(entries(2, 2..3, 10)).unwrap();
        log.settle().unwrap();
        assert!(told.is_durable());
        drop(log);
        disk.crash();
        let log = Stepped::open(&disk, SMALL).unwrap();
        assert_eq!((log.indexes(), log.log.last()), (vec![0, 1, 2], Some(super::at(2, 2))));
    }
}

#[test]
fn bytes_of_a_log_inside_an_entry_are_only_bytes() {
    let other = closed().0;
    let disk = SimDisk::new(1);
    let mut stolen = other.bytes(&segments(&other)[1]);
    stolen.truncate(written(&stolen));
    let mut log = Stepped::open(&disk, super::Options { segment_bytes: 1 << 16, ..SMALL }).unwrap();
    let payload = super::Payload::Normal(super::Command(stolen.into()));
    let new = |index| openraft::entry::RaftEntry::new(super::at(1, index).into(), payload.clone());
    log.append(vec![new(0)]).unwrap();
    log.settle().unwrap();
    let before = written(&disk.bytes(&segments(&disk)[0]));
    log.append(vec![new(1)]).unwrap();
    log.settle().unwrap();
    drop(log);
    let path = &segments(&disk)[0];
    // The front of the last batch is lost, its rest is full of valid records of a log, but none is of this place.
    disk.edit(path, |bytes| bytes[before..before.next_multiple_of(PAGE) + PAGE].fill(0));
    assert_eq!(open(&disk).unwrap(), [0]);
}

#[test]
fn a_missing_segment_is_named() {
    let (disk, _) = closed();
    let mut log = Stepped::open(&disk, SMALL).unwrap();
    for index in 14..30 {
        log.append(vec![entry(2, index, 700)]).unwrap();
    }
    log.settle().unwrap();
    log.close().unwrap();
    let all = segments(&disk);
    assert!(all.len() > 4);
    for (missing, path) in all.iter().enumerate().take(all.len() - 1) {
        let copy = disk.fork();
        meshstore::environment::Disk::remove_file(&copy, path).unwrap();
        let fault = open(&copy).unwrap_err().to_string();
        assert!(fault.contains(&format!("log segment {:08} is missing", missing + 1)), "{fault}");
    }
}

#[test]
fn a_shortened_segment_is_damage() {
    let (disk, _) = closed();
    for path in segments(&disk) {
        let copy = disk.fork();
        copy.edit(&path, |bytes| bytes.truncate(3000));
        let fault = open(&copy).unwrap_err().to_string();
        assert!(fault.contains("3000 bytes instead of 4096"), "{fault}");
    }
}

#[test]
fn a_segment_of_another_log_or_place_is_refused() {
    let (disk, _) = closed();
    let all = segments(&disk);
    let first = disk.bytes(&all[0]);
    disk.edit(&all[1], |bytes| bytes.clone_from(&first));
    let fault = open(&disk).unwrap_err().to_string();
    assert!(fault.contains("it says that it is segment 00000001"), "{fault}");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, _) = closed();
    let path = &segments(&disk)[1];
    // A record of each kind, at the end and in the front, as a newer program would write it.
    let bytes = disk.bytes(path);
    let end = written(&bytes).next_multiple_of(PAGE);
    for (offset, kind, version) in [(0, Kind::LogSegment, 2), (end, Kind::LogBatch, 2), (end, Kind::LogSynced, 9)] {
        let copy = disk.fork();
        let newer =
            codec::seal(kind, version, 0, b"what it says only a newer program knows, at some length: 1234567890");
        copy.edit(path, |bytes| {
            bytes[offset..offset + newer.len()].copy_from_slice(&newer);
        });
        let fault = open(&copy);
        if offset == 0 {
            let fault = fault.unwrap_err().to_string();
            assert!(
                fault.contains("newer than this program knows") && fault.contains("use a newer meshstore"),
                "{fault}"
            );
        }
    }
    // Where the next batch would begin.
    let place = {
        let end = written(&bytes) as u64;
        // The marker's last field ends with zeros; it fills its 69 bytes from where its magic begins.
        let start = (0..end).rev().find(|at| bytes[*at as usize..].starts_with(&[0x4D, 0x53, 23, 1])).unwrap();
        let end = start + 69;
        if PAGE as u64 - end % PAGE as u64 >= 69 { end } else { end.next_multiple_of(PAGE as u64) }
    };
    let newer = codec::seal(Kind::LogBatch, 2, 0, &[7; 80]);
    disk.edit(path, |bytes| {
        let at = place as usize;
        bytes[at..at + newer.len()].copy_from_slice(&newer);
    });
    let fault = open(&disk).unwrap_err().to_string();
    assert!(fault.contains("newer than this program knows") && fault.contains(&format!("offset {place}")), "{fault}");
}

#[test]
fn a_damaged_entry_is_noticed_when_it_is_read() {
    let (disk, _) = closed();
    let log = Stepped::open(&disk, SMALL).unwrap();
    let path = &segments(&disk)[0];
    disk.flip_bit(path, 700);
    let fault = log.log.entries(0..u64::MAX, usize::MAX).unwrap_err().to_string();
    assert!(fault.contains(path.to_str().unwrap()) && fault.contains("checksum mismatch"), "{fault}");
}
