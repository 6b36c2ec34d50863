//! `/metrics`: all that a node counts and measures, as Prometheus' text. What each is for: `docs/operations.md`; the
//! dashboard that shows them: `docs/grafana.json`.

use super::calls::Calls;
use crate::{
    metrics::Text,
    node::{Counts, Node, Status, WatchCounts},
};

/// The text.
pub(super) fn text(node: &Node, calls: &Calls) -> String {
    let (status, counts, mut text) = (node.status(false), node.counts(), Text::default());
    of_node(node, &status, &mut text);
    of_storage(node, &status, &counts, &mut text);
    of_log(node, &status, &counts, &mut text);
    of_members(&status, &mut text);
    of_reads(node, &counts, &mut text);
    of_watches(node, &mut text);
    calls.write(&mut text);
    text.into_text()
}

fn gauges<const N: usize>(text: &mut Text, gauges: [(&str, &str, u64); N]) {
    for (name, help, value) in gauges {
        text.metric(name, "gauge", help, value);
    }
}

fn counters<const N: usize>(text: &mut Text, counters: [(&str, &str, u64); N]) {
    for (name, help, value) in counters {
        text.metric(name, "counter", help, value);
    }
}

fn of_node(node: &Node, status: &Status, text: &mut Text) {
    let disk = status.disk.unwrap_or_default();
    let own = [
        ("disk_free_bytes", "Free bytes on the file system of the data.", disk.free),
        ("disk_needed_bytes", "Bytes that should be free.", disk.needed),
        ("disk_alarm", "1 while this node is short of disk space, 2 while its disk is full.", disk.level as u64),
        (
            "writes_refused",
            "Whether this leader refuses what grows the data.",
            u64::from(status.writes_refused.is_some()),
        ),
        (
            "state_diverged",
            "Whether replicas differ: this node from the majority, or, on the leader, too many from each other.",
            u64::from(status.divergence.is_some()),
        ),
        ("is_leader", "Whether this node leads.", u64::from(status.role == "leader")),
        ("leader_id", "The leader, 0 if none is known.", status.leader_id.unwrap_or(0)),
        ("term", "Raft term.", status.term),
        ("revision", "Revision of the state.", status.revision),
        ("sessions", "Open sessions.", status.sessions),
    ];
    gauges(text, own);
    text.seconds("data_age_seconds", "How old the data here may be.", node.age_ms());
}

fn of_storage(node: &Node, status: &Status, counts: &Counts, text: &mut Text) {
    let storage = node.storage_status();
    let unflushed = status.applied_index.saturating_sub(status.flushed_index);
    let gauged = [
        ("flushed_index", "Log index up to which the newest run on disk reaches.", status.flushed_index),
        ("unflushed_entries", "Entries that are applied, and in no run on disk.", unflushed),
        ("memtable_bytes", "Bytes of the memtable that is written.", storage.memtable_bytes as u64),
        ("frozen_tables", "Memtables that wait to be flushed or merged.", storage.frozen_tables as u64),
        ("frozen_bytes", "Bytes of memtables that wait to be merged.", storage.frozen_bytes as u64),
        ("runs", "Runs on disk.", storage.runs as u64),
        ("run_bytes", "Bytes of the runs.", storage.run_bytes),
        ("base_bytes", "Bytes of the base.", storage.base_bytes),
        ("open_views", "Open views.", storage.open_views as u64),
        ("undo_bytes", "Bytes kept for open views only.", storage.undo_bytes as u64),
    ];
    gauges(text, gauged);
    let flushed = "How long ago storage last reached further on disk, or the node started.";
    text.seconds("flush_age_seconds", flushed, counts.since_flush_ms);
}

fn of_log(node: &Node, status: &Status, counts: &Counts, text: &mut Text) {
    let log = node.log_statistics();
    let unapplied = status.committed_index.saturating_sub(status.applied_index);
    let gauged = [
        ("log_last_index", "Last index in the log.", status.last_log_index),
        ("log_committed_index", "Last index known to be committed.", status.committed_index),
        ("log_applied_index", "Last index applied.", status.applied_index),
        ("log_purged_index", "Last index purged.", status.purged_index),
        ("log_segments", "Segments of the log.", log.segments),
        ("log_tail_bytes", "Bytes of the log held in memory.", log.tail_bytes),
        ("apply_lag_entries", "Entries that are committed and not applied here.", unapplied),
        ("proposals_waiting", "Proposals that wait for a place in a log entry.", counts.waiting),
        ("proposals_waiting_bytes", "Bytes of proposals that have no outcome yet.", counts.waiting_bytes),
    ];
    gauges(text, gauged);
    let counted = [
        ("log_syncs_total", "Batches written to the log, one fdatasync each.", log.batches),
        ("log_entries_total", "Entries written to the log.", log.entries),
        ("log_bytes_total", "Bytes written to the log.", log.bytes),
        ("proposals_total", "Proposals that this node put into log entries as the leader.", counts.proposals),
        ("proposed_entries_total", "Log entries that this node proposed as the leader.", counts.entries),
    ];
    counters(text, counted);
    let measures = node.measures();
    let histograms = [
        ("log_sync_seconds", "How long each fdatasync of the log took.", node.log_syncs()),
        (
            "commit_seconds",
            "On the leader: from when a proposal was queued until it was on a quorum's disks and applied here.",
            &measures.commit,
        ),
        ("apply_seconds", "How long each entry took to be applied.", node.applies()),
        (
            "read_index_seconds",
            "How long each round took that makes reads linearizable: to a quorum, on a follower to the leader.",
            &measures.read_index,
        ),
    ];
    for (name, help, histogram) in histograms {
        text.head(name, "histogram", help);
        text.histogram(name, "", histogram);
    }
}

fn of_watches(node: &Node, text: &mut Text) {
    let WatchCounts { watchers, ring_bytes, oldest_revision, told, overtaken } = node.watch_counts();
    let gauged = [
        ("watchers", "Watches that are served.", watchers),
        ("watch_ring_bytes", "Bytes of recent changes that are kept for watchers.", ring_bytes),
        ("watch_oldest_revision", "The oldest revision behind which all changes are kept.", oldest_revision),
    ];
    gauges(text, gauged);
    let counted = [
        ("watch_changes_total", "Changes that were sent to watchers.", told),
        ("watch_overtaken_total", "Watches whose revision was not or no longer covered here.", overtaken),
    ];
    counters(text, counted);
}

fn of_members(status: &Status, text: &mut Text) {
    text.head(
        "member_lag_entries",
        "gauge",
        "On the leader: entries that are in its log and not known to be on a member's disk.",
    );
    for member in &status.members {
        if let Some(matched) = member.matched_index {
            let lag = status.last_log_index.saturating_sub(matched);
            text.value("member_lag_entries", &format!("member=\"{}\"", member.node_id), lag);
        }
    }
}

fn of_reads(node: &Node, counts: &Counts, text: &mut Text) {
    let Counts { linearizable, at_least, stale, .. } = *counts;
    text.head("reads_total", "counter", "Reads, by how fresh they had to be.");
    for (mode, count) in [("linearizable", linearizable), ("at_least", at_least), ("stale", stale)] {
        text.value("reads_total", &format!("mode=\"{mode}\""), count);
    }
    // The health that a node tells by words, for alarms.
    let ready = u64::from(node.vitals().check(node.silence()).is_ok());
    text.metric("ready", "gauge", "Whether the node is ready: what /readyz says.", ready);
}
