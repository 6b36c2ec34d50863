//! The cases, and what they share. One that is written and not named in [`all`] is a warning of the
//! compiler (dead code), and so an error in CI.

mod broker;
mod broker_watch;
mod broker_wire;
mod consensus_log;
mod held_hazards;
mod held_transactions;
mod json;
mod kv;
mod large_messages;
mod leases;
mod locks;
mod log_transactions;
mod manifests;
mod members;
mod message_lists;
mod messages;
mod open_transactions;
mod query;
mod reads;
mod retention;
mod sessions;
mod status;
mod tables;
mod topology;
mod topology_transactions;
mod transactions;
mod watch;

use std::{
    fmt::Debug,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use meshstore::{
    Client, Error, Result,
    proto::v1::{OpenSessionRequest, session_client::SessionClient},
};

use crate::harness;
use tables::{Config, NodeState, Route, State};

/// One case.
type Case = crate::Case<Client>;

macro_rules! cases {
    ($($module:ident::$case:ident $(<$table:ident>)?),+ $(,)?) => {
        vec![$((
            concat!(stringify!($module), "::", stringify!($case) $(, "<", stringify!($table), ">")?),
            (|client| Box::pin($module::$case $(::<$table>)?(client))) as Case,
        )),+]
    };
}

/// Cases that hold for each table.
macro_rules! of_tables {
    ($into:ident: [$($table:ident),+] $cases:tt) => {
        $(of_tables!(@one $into $table $cases);)+
    };
    (@one $into:ident $table:ident [$($module:ident::$case:ident),+ $(,)?]) => {
        $into.extend(cases![$($module::$case<$table>),+]);
    };
}

/// All cases, with their names.
pub fn all() -> Vec<(&'static str, Case)> {
    let mut all = cases![
        // First: so a new cluster is still at revision 0.
        open_transactions::the_first_read_decides_what_it_sees,
        messages::what_is_stored_is_read_back,
        messages::any_content_and_time_is_kept,
        messages::an_upsert_replaces_all_but_the_creation,
        messages::a_missing_message_is_not_found,
        messages::a_deleted_message_is_gone,
        messages::names_are_checked,
        messages::content_is_bounded,
        message_lists::a_list_is_in_order_of_time_then_id,
        message_lists::sender_receiver_and_pair_select,
        message_lists::time_bounds_are_half_open,
        message_lists::names_that_begin_alike_are_kept_apart,
        message_lists::a_delete_takes_the_message_off_every_list,
        message_lists::an_overwrite_moves_the_message_between_lists,
        message_lists::pages_show_one_revision_while_others_write,
        message_lists::a_foreign_cursor_is_refused,
        message_lists::filters_are_checked,
        message_lists::a_heavy_page_is_closed_early,
        reads::an_answer_names_its_revision,
        reads::at_least_sees_the_named_write,
        reads::a_revision_that_never_comes_ends_with_the_deadline,
        reads::a_stale_read_is_right_or_too_early,
        sessions::a_repeated_attempt_is_executed_once,
        sessions::a_repeated_sequence_with_another_request_changes_nothing,
        sessions::a_repeated_delete_answers_as_the_first,
        sessions::a_repeated_refusal_answers_as_the_first,
        sessions::an_answered_sequence_is_not_executed_again,
        sessions::an_unknown_session_is_refused,
        sessions::a_closed_session_is_refused,
        sessions::an_attempt_is_checked,
        sessions::a_session_is_kept_and_its_life_is_bounded,
        sessions::without_a_session_every_call_is_executed,
        sessions::writers_at_once_are_executed_one_after_the_other,
        sessions::of_many_deletes_one_succeeds,
        sessions::a_malformed_request_is_explained,
        status::a_node_tells_of_itself,
        status::keyspaces_count_their_records,
        tables::one_name_is_another_record_in_each_table,
        tables::a_cursor_of_another_table_is_refused,
    ];
    all.extend([large_messages(), topology(), members(), consensus_log(), transactions()].concat());
    all.extend([held_transactions(), kv(), query(), watch(), leases(), broker()].concat());
    of_tables!(all: [State, NodeState, Route, Config] [
        tables::what_is_stored_is_read_back,
        tables::an_upsert_keeps_the_creation,
        tables::what_is_missing_is_not_found,
        tables::what_is_deleted_is_gone,
        tables::keys_are_checked,
        tables::any_key_is_kept_apart,
        tables::values_are_bounded,
        tables::a_list_is_in_key_order,
        tables::pages_follow_each_other,
        tables::pages_show_one_revision_while_others_write,
        tables::a_wrong_cursor_or_limit_is_refused,
    ]);
    of_tables!(all: [State, Route, Config] [tables::a_prefix_selects]);
    of_tables!(all: [NodeState, Route, Config] [
        json::a_text_is_kept_exactly,
        json::what_is_no_json_is_refused,
        json::depth_is_bounded,
    ]);
    all
}

/// Those of the data broker.
fn broker() -> Vec<(&'static str, Case)> {
    cases![
        broker::what_is_declared_is_inserted_and_found,
        broker::what_was_never_declared_is_not_found,
        broker::a_collection_is_shared_as_far_as_was_granted,
        broker::services_with_one_name_for_their_collections_are_kept_apart,
        broker::operators_projection_sort_and_limit_work_together,
        broker::documents_are_updated_and_deleted_by_a_filter,
        broker::pages_with_skip_end_with_an_empty_one,
        broker::a_cursor_shows_one_revision_while_others_write,
        broker::of_many_documents_those_go_in_that_can,
        broker::what_is_unique_stays_so_under_64_writers,
        broker::each_job_is_taken_once,
        broker::a_write_may_ask_for_a_revision,
        broker::documents_go_when_their_time_is_over,
        broker::a_collection_holds_no_more_than_it_may,
        broker::an_index_is_built_behind_what_is_there,
        broker::documents_of_any_shape_live_together,
        broker::names_documents_and_filters_are_checked,
        broker::what_is_dropped_is_gone_at_once,
        broker_watch::a_filter_is_watched_as_if_there_were_nothing_else,
        broker_watch::what_is_there_is_shown_in_parts_however_little_a_filter_lets_through,
        broker_watch::a_watch_begins_before_its_collection_and_ends_with_it,
        broker_watch::a_watch_ends_when_its_grant_is_revoked,
        broker_watch::what_cannot_be_watched_of_documents_is_refused,
        broker_wire::a_repeated_call_answers_what_the_first_has_done,
        broker_wire::what_was_revoked_is_not_read_as_it_was,
        manifests::a_manifest_declares_collections_and_asks_for_access,
        manifests::what_a_manifest_cannot_have_is_told_and_the_rest_is_done,
        manifests::a_data_client_does_what_services_know_it_for,
    ]
}

/// Those of messages in chunks, and of how long messages are kept.
fn large_messages() -> Vec<(&'static str, Case)> {
    cases![
        large_messages::what_is_stored_in_chunks_is_read_back,
        large_messages::the_largest_message_is_taken_and_goes_again,
        large_messages::chunks_may_come_in_any_order_to_any_node,
        large_messages::each_mistake_has_its_own_error_and_changes_nothing,
        large_messages::what_is_overwritten_or_deleted_leaves_no_chunks,
        large_messages::a_message_that_goes_while_it_is_read_is_never_a_mix,
        large_messages::an_upload_that_is_broken_off_leaves_nothing,
        large_messages::a_repeated_upload_is_answered_as_the_first,
        large_messages::a_transaction_takes_no_large_message,
        retention::a_rule_is_kept_listed_and_deleted,
        retention::rules_are_checked,
        retention::of_too_many_messages_the_oldest_go,
        retention::messages_that_are_too_old_go,
    ]
}

/// Those of the membership.
fn members() -> Vec<(&'static str, Case)> {
    cases![
        members::the_leader_knows_of_all,
        members::who_is_no_member_cannot_be_changed,
        members::ids_and_addresses_are_checked,
        members::only_an_empty_node_that_waits_is_added,
        members::an_address_leads_to_the_node_that_it_is_for,
        members::the_last_voter_stays_and_the_lead_goes_round,
    ]
}

/// Those of several records together.
fn transactions() -> Vec<(&'static str, Case)> {
    cases![
        transactions::a_transaction_changes_all_kinds_at_one_revision,
        transactions::a_precondition_that_does_not_hold_changes_nothing,
        transactions::one_of_many_wins,
        transactions::bad_changes_are_refused_with_their_place,
        open_transactions::a_transaction_reads_its_own_writes,
        open_transactions::lists_show_what_was_written,
        open_transactions::reads_show_one_revision,
        open_transactions::what_others_changed_is_a_conflict,
        open_transactions::one_that_does_not_commit_changes_nothing,
        open_transactions::a_lost_race_is_run_again,
        log_transactions::an_entry_is_appended_together_with_other_changes,
        log_transactions::a_log_is_read_as_the_transaction_leaves_it,
        log_transactions::what_others_append_to_what_was_listed_is_a_conflict,
    ]
}

/// Those of transactions that the leader keeps.
fn held_transactions() -> Vec<(&'static str, Case)> {
    cases![
        held_transactions::its_own_writes_are_read_and_committed_at_one_revision,
        held_transactions::writes_follow_each_other_as_outside,
        held_transactions::namespaces_are_created_in_a_transaction,
        held_transactions::a_namespace_that_others_filled_refuses_the_commit,
        held_transactions::a_serializable_one_reads_one_revision,
        held_transactions::what_others_changed_aborts_by_name,
        held_transactions::what_was_not_read_does_not_abort,
        held_transactions::read_committed_checks_what_writes_were_decided_on,
        held_transactions::a_rollback_leaves_nothing,
        held_transactions::names_that_mean_nothing_are_refused,
        held_transactions::calls_that_cannot_belong_are_refused_by_name,
        held_transactions::a_transaction_ends_when_its_time_is_over,
        held_transactions::open_transactions_are_bounded,
        held_transactions::what_a_transaction_holds_is_bounded,
        held_transactions::a_repeated_commit_answers_as_the_first,
        held_transactions::a_repeated_call_in_a_transaction_is_done_once,
        held_transactions::a_transaction_is_reached_through_every_node,
        held_transactions::a_transaction_is_whose_it_is,
        held_transactions::many_transfers_at_once_keep_the_sum,
        held_transactions::calls_of_one_transaction_wait_for_each_other,
        held_transactions::queries_see_what_waits_and_are_checked,
        held_transactions::a_commit_heeds_its_fence,
        held_hazards::an_index_that_is_dropped_meanwhile_harms_nobody,
        held_hazards::a_namespace_that_others_change_ends_what_stands_on_it,
        held_hazards::pages_go_on_behind_what_was_changed,
        held_hazards::a_late_attempt_overwrites_nothing,
        held_hazards::attributes_of_what_was_deleted_do_not_come_back,
        held_hazards::what_is_not_committed_was_at_no_revision,
        held_hazards::fences_are_looked_at_when_the_call_is_made,
        held_hazards::a_long_list_counts_as_its_namespace,
        held_hazards::what_could_not_be_committed_is_refused_before,
    ]
}

/// Those of the storage contract on the wire.
fn kv() -> Vec<(&'static str, Case)> {
    cases![
        kv::a_repeated_write_answers_as_the_first,
        kv::a_repeated_write_of_many_keys_says_what_it_knows,
        kv::a_count_is_of_the_revision_that_is_asked_for,
    ]
}

/// Those of queries, and of indexes.
fn query() -> Vec<(&'static str, Case)> {
    cases![
        query::values_are_found_by_what_is_in_them,
        query::numbers_are_compared_exactly,
        query::what_is_found_is_sorted,
        query::pages_of_a_query_show_one_revision_while_others_write,
        query::an_index_is_used_and_shown,
        query::every_write_keeps_the_indexes,
        query::an_index_that_is_created_while_others_write_misses_nothing,
        query::indexes_go_with_their_namespace,
        query::a_query_reads_in_every_mode_on_every_node,
        query::bad_queries_are_refused,
        query::filters_that_only_the_wire_can_carry_are_refused,
    ]
}

/// Those of changes as they come.
fn watch() -> Vec<(&'static str, Case)> {
    cases![
        watch::changes_come_in_order_with_what_was_before,
        watch::only_what_is_watched_is_told,
        watch::what_there_is_comes_first_without_gap_or_double,
        watch::what_there_is_may_be_nothing,
        watch::a_transaction_stays_together,
        watch::a_namespace_is_watched_by_its_name,
        watch::attributes_are_told_if_they_are_asked_for,
        watch::mesh_storage_is_watched_by_table,
        watch::the_topology_is_watched_as_its_history,
        watch::progress_tells_up_to_where_all_is_known,
        watch::what_cannot_be_watched_is_refused,
        watch::a_connection_has_so_many_watches_and_room_for_calls,
        watch::a_wait_that_is_given_up_loses_nothing,
        watch::many_watch_one_namespace,
        watch::attributes_that_go_with_a_deletion_are_told,
        watch::a_large_transaction_is_one_event_for_all,
    ]
}

/// Those of leases and locks.
fn leases() -> Vec<(&'static str, Case)> {
    cases![
        leases::a_lease_takes_along_what_is_attached_to_it,
        leases::a_lease_that_nobody_keeps_expires_with_all_its_keys,
        leases::a_lease_that_is_kept_outlives_its_time,
        leases::whoever_keeps_a_lease_is_told_when_it_is_gone,
        leases::many_leases_are_kept_at_one_revision,
        leases::leases_are_listed_in_pages,
        leases::what_is_overwritten_without_a_lease_stays,
        leases::a_lease_holds_so_many_keys_and_no_more,
        leases::the_heaviest_lease_goes_at_once,
        leases::keys_of_a_cleared_namespace_are_no_longer_held,
        leases::what_is_wrong_with_a_lease_is_named,
        leases::a_repeated_grant_answers_as_the_first,
        leases::what_is_attached_already_counts_once,
        leases::keys_are_attached_in_transactions,
        locks::a_lock_is_given_on_in_turn,
        locks::trying_takes_a_lock_or_leaves_nothing,
        locks::who_gives_up_leaves_nothing_behind,
        locks::a_lock_is_let_go_by_its_own_lease_only,
        locks::a_write_with_a_token_needs_the_lock,
        locks::only_writes_take_a_fence,
        locks::what_is_wrong_with_a_lock_is_named,
        locks::a_holder_that_vanishes_is_followed_by_the_next,
        locks::a_holder_is_told_that_its_lock_is_lost,
        locks::locks_and_queues_outlive_a_change_of_the_leader,
        locks::what_is_done_under_a_lock_is_done_one_after_the_other,
        locks::a_leader_is_elected_seen_and_followed,
        locks::waiting_can_be_given_up_and_has_no_end,
        locks::leases_and_locks_of_a_fenced_client_heed_the_fence,
    ]
}

/// Those of the consensus log.
fn consensus_log() -> Vec<(&'static str, Case)> {
    cases![
        consensus_log::a_group_keeps_its_entries_in_order,
        consensus_log::a_position_is_taken_once,
        consensus_log::a_range_is_deleted_whole,
        consensus_log::an_application_entry_stands_in_the_raft_log,
        consensus_log::entries_that_are_appended_together_have_places_of_their_own,
        consensus_log::the_raft_log_shows_what_was_written,
        consensus_log::bad_log_entries_are_refused,
    ]
}

/// Those of the definition of meshes.
fn topology() -> Vec<(&'static str, Case)> {
    cases![
        topology::a_seeded_mesh_has_the_defaults_of_the_tables,
        topology::names_are_unique_and_nothing_changes_if_one_is_taken,
        topology::who_may_join_is_the_mesh_s_to_say,
        topology::routes_connect_nodes_of_one_mesh_once,
        topology::a_node_that_goes_takes_its_routes_along,
        topology::a_region_that_goes_leaves_its_nodes,
        topology::nodes_are_checked,
        topology::a_whole_mesh_is_applied_as_one_change,
        topology::what_is_wrong_in_a_specification_is_named_with_its_place,
        topology::a_rollback_restores_exactly,
        topology::an_unconfirmed_change_is_rolled_back,
        topology::a_large_change_waits_only_if_there_is_a_way_back,
        topology::while_a_change_waits_others_are_refused,
        topology::who_has_applied_a_revision_is_known,
        topology::a_storage_node_knows_whom_it_serves,
        topology::a_repeated_attempt_founds_one_mesh,
        topology::a_repeated_attempt_joins_once,
        topology::regions_are_changed_and_listed,
        topology::conflicting_changes_leave_no_dangling_route,
        topology_transactions::changes_of_the_topology_go_with_other_records,
        topology_transactions::changes_follow_each_other_in_a_transaction,
        topology_transactions::who_was_faster_aborts_it_by_name,
        topology_transactions::what_cannot_wait_for_a_commit_is_refused,
    ]
}

/// A name that no other case and no other run uses, so that cases can share a cluster.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{name}-{}-{}-", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection to the leader, without a client in between.
pub async fn leader(client: &Client) -> harness::Wire {
    let status = client.cluster().status(false).await.unwrap();
    let leader = status.members.iter().find(|member| member.leader).expect("a leader");
    harness::wire(&leader.client_address).await
}

/// A session that the test numbers itself.
pub async fn session(wire: &harness::Wire) -> u64 {
    let opened = SessionClient::new(wire.clone()).open_session(OpenSessionRequest { ttl_ms: 0 }).await.unwrap();
    opened.into_inner().session
}

/// The field that an answer calls invalid.
pub fn invalid_field<T: Debug>(answer: Result<T>) -> String {
    match answer {
        Err(Error::InvalidArgument { field, .. }) => field,
        other => panic!("not an InvalidArgument: {other:?}"),
    }
}

/// That an answer says that this does not exist.
pub fn assert_missing<T: Debug>(answer: Result<T>, kind: &'static str, name: &str) {
    match answer {
        Err(error) => assert_eq!(error, Error::NotFound { kind, name: name.into() }),
        Ok(found) => panic!("there is a {kind} {name}: {found:?}"),
    }
}
