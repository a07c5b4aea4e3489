//! Shards against each other: golden scripts of three processes over memory engines.
//!
//! See [`script`] for the language. `QUORATE_REWRITE=1 cargo test -p quorate-consensus --test raft`
//! writes what happens into the scripts; read the difference before you commit it.
#![allow(clippy::unwrap_used)]

mod chaos;
mod cluster;
mod garbage;
mod host;
mod script;
mod show;

macro_rules! scripts {
    ($($name:ident),+ $(,)?) => {$(
        #[test]
        fn $name() {
            script::run(stringify!($name));
        }
    )+};
}

scripts!(
    a_committed_change_is_not_forgotten,
    a_demoted_leader_hands_over,
    a_destroyed_group_answers,
    a_leader_is_lost_in_a_joint_configuration,
    a_learner_asks_for_its_leader,
    a_lost_quorum_is_told,
    a_pair_is_promoted,
    a_process_is_back_before_the_group_sleeps,
    a_removal_is_finished_after_a_crash,
    a_removed_learner_asks_around,
    a_restart_keeps_the_promises,
    a_restarted_leader_is_replaced,
    bounds_are_kept,
    bytes_are_bounded,
    changes_are_refused,
    commands_are_applied,
    commands_lose_their_place,
    elections_are_staggered,
    groups_are_kept_awake,
    groups_sleep,
    groups_wake_up,
    large_entries_are_truncated_early,
    leadership_is_handed_over,
    leases_are_granted,
    leases_are_withheld,
    logs_are_truncated,
    members_change_across_crashes,
    members_come_and_go,
    messages_wait_for_their_group,
    one_voter_is_enough,
    reads_find_their_index,
    replicas_know_how_fresh_they_are,
    learners_serve_reads,
    readiness_means_applied,
    silence_wakes_the_orphans,
    snapshots_are_installed,
    snapshots_beside_each_other_keep_their_logs,
    snapshots_keep_the_log_they_need,
    snapshots_nobody_needs_are_discarded,
    the_only_voter_is_replaced,
    the_only_voter_is_replaced_across_crashes,
    two_of_one_rank_are_elected,
    two_processes_restart_at_once,
    votes_are_promised,
    what_all_have_is_published,
    what_is_not_settled_is_published,
);
