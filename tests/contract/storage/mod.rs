//! The storage contract as its trait promises it: one set of cases, run on every backend and on every kind of cluster.

mod backends;
pub mod cases;
mod example;
mod moving;
mod options;
#[cfg(feature = "sqlite")]
mod sqlite;
mod through;
mod transactions;
mod typed;

pub use through::Through;

macro_rules! cases {
    ($($module:ident::$case:ident),+ $(,)?) => {
        vec![$((
            concat!("storage::", stringify!($module), "::", stringify!($case)),
            (|storage| Box::pin($module::$case(storage))) as crate::Case<Through>,
        )),+]
    };
}

/// All cases, with their names.
pub fn all() -> Vec<(&'static str, crate::Case<Through>)> {
    cases![
        cases::a_value_is_kept_exactly_with_what_is_known_of_it,
        cases::the_default_namespace_always_exists,
        cases::a_write_creates_its_namespace_and_nothing_else_does,
        cases::one_key_is_another_value_in_each_namespace,
        cases::deleting_what_is_not_there_is_no_error,
        cases::several_are_deleted_all_or_none_or_each_that_may_be,
        cases::what_is_there_is_overwritten_only_if_it_may_be,
        cases::a_condition_that_does_not_hold_changes_nothing,
        cases::attributes_are_merged_or_replaced,
        cases::several_values_are_read_at_one_revision,
        cases::several_values_are_written_all_or_none,
        cases::several_values_are_written_as_far_as_possible,
        cases::a_list_is_in_key_order_and_its_pattern_selects,
        cases::a_list_has_limit_offset_and_pages,
        cases::values_are_counted,
        cases::a_namespace_is_created_shown_listed_and_modified,
        cases::names_of_namespaces_are_checked,
        cases::a_namespace_that_holds_values_goes_only_with_them,
        cases::a_full_namespace_takes_no_more,
        cases::older_versions_are_kept_as_many_as_asked,
        cases::a_namespace_without_history_keeps_none,
        cases::clearing_leaves_the_namespace,
        cases::keys_and_values_are_checked,
        cases::of_many_increments_none_is_lost,
        cases::namespaces_that_are_created_at_once_keep_apart,
        cases::what_is_known_of_the_past_is_never_guessed,
        cases::a_history_of_large_values_comes_in_parts,
        options::what_is_said_of_all_holds_where_an_entry_says_nothing,
        options::attributes_are_shown_if_they_are_asked_for,
        options::values_are_read_at_the_revision_of_a_list,
        options::what_a_backend_supports_it_says,
        options::values_are_found_by_what_is_in_them,
        transactions::a_transaction_sees_what_it_wrote_and_others_do_not,
        transactions::one_that_is_rolled_back_leaves_nothing,
        transactions::what_others_changed_aborts_a_serializable_one,
        typed::typed_values_are_written_and_read_back,
        typed::what_does_not_fit_the_type_is_told_with_its_place,
        typed::a_value_is_read_modified_and_written_though_others_do_the_same,
        typed::a_modification_may_delete_leave_or_refuse,
        moving::an_export_is_imported_exactly,
        moving::an_export_is_of_one_revision,
        moving::what_is_there_is_overwritten_skipped_or_stops_the_import,
        moving::a_file_that_is_not_whole_changes_nothing,
        moving::what_the_store_refuses_is_told_with_its_line,
        moving::a_namespace_moves_from_one_backend_to_another,
    ]
}
