//! Every state of two processes, and a counterexample for each rule that is left out.

use reqwest_reauth_model::{
    DURABLE, LIVING, LOCKED, LOGOUT_WINS, Limits, MARKED, NOTHING_LOST, OWN_LOGIN, Rule, SEEN,
    SENT_ONCE, SERVERS_WORD, Transaction, WRITES,
};
use stateright::{Checker, Model};

const LIMITS: Limits =
    Limits { processes: 2, refreshes: 3, kills: 1, losses: 2, troubles: 1, logouts: 1, logins: 1 };

/// A refresh is in the journal alone, and so is the next one's mark.
const STORE_FAILS: Limits = Limits { troubles: 2, logins: 0, ..LIMITS };

#[test]
fn all_invariants_hold_in_every_state_of_two_processes() {
    holds(LIMITS, 551_286);
}

#[test]
fn all_invariants_hold_in_every_state_of_three_processes() {
    holds(Limits { processes: 3, logins: 0, ..LIMITS }, 246_067);
}

#[test]
fn all_invariants_hold_in_every_state_of_a_store_that_fails_twice() {
    holds(STORE_FAILS, 81_253);
}

/// `states`: so many are looked at. A change of the model changes that.
fn holds(limits: Limits, states: usize) {
    let checker = Transaction { limits, broken: None }.checker().threads(2);
    let checker = checker.spawn_bfs().join();
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), states);
}

fn is_missed(rule: Rule, property: &'static str) {
    is_missed_within(LIMITS, rule, property);
}

fn is_missed_within(limits: Limits, rule: Rule, property: &'static str) {
    let model = Transaction { limits, broken: Some(rule) };
    let checker = model.checker().threads(2).spawn_bfs().join();
    let path = checker.discovery(property);
    let found: Vec<_> = checker.discoveries().into_keys().collect();
    assert!(path.is_some(), "without {rule:?}, {property:?} still holds; found: {found:?}");
}

#[test]
fn without_the_lock_sessions_are_lost() {
    is_missed(Rule::TakeTheLock, LOCKED);
    is_missed(Rule::TakeTheLock, WRITES);
    is_missed(Rule::TakeTheLock, NOTHING_LOST);
}

#[test]
fn without_reading_again_sessions_are_lost() {
    is_missed(Rule::ReadAgain, SEEN);
    is_missed(Rule::ReadAgain, NOTHING_LOST);
    is_missed(Rule::ReadAgain, SENT_ONCE);
}

#[test]
fn without_the_mark_a_token_is_sent_again_unknowingly() {
    is_missed(Rule::Mark, MARKED);
    is_missed(Rule::Mark, SENT_ONCE);
}

#[test]
fn without_the_journal_a_store_that_fails_loses_the_session() {
    is_missed(Rule::Journal, NOTHING_LOST);
    is_missed(Rule::Journal, DURABLE);
}

#[test]
fn without_looking_before_the_save_another_login_is_written_over() {
    is_missed(Rule::LookBeforeSaving, OWN_LOGIN);
}

#[test]
fn without_looking_after_the_save_a_logout_does_not_win() {
    is_missed(Rule::LookAfterSaving, LOGOUT_WINS);
}

#[test]
fn without_keeping_logins_apart_one_is_adopted_by_another() {
    is_missed(Rule::KeepLoginsApart, OWN_LOGIN);
}

#[test]
fn who_revokes_on_a_surprise_revokes_the_living() {
    is_missed(Rule::RevokeOnlyWhatIsOut, LIVING);
}

#[test]
fn who_replays_for_ever_sends_again() {
    is_missed(Rule::ReplayAtMostOnce, SENT_ONCE);
}

#[test]
fn who_leaves_the_lock_before_a_write_has_landed_loses_another_login() {
    is_missed(Rule::HoldTheLockForALateWrite, WRITES);
    is_missed(Rule::HoldTheLockForALateWrite, NOTHING_LOST);
}

#[test]
fn who_forgets_the_mark_while_it_brings_the_store_up_to_date_sends_again_unknowingly() {
    is_missed_within(STORE_FAILS, Rule::LeaveTheMarkToNewerTokens, SENT_ONCE);
}

#[test]
fn who_takes_any_failure_for_a_refusal_ends_a_living_session() {
    is_missed(Rule::EndOnlyWhatIsRefused, SERVERS_WORD);
}
