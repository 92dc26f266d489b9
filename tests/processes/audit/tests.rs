//! What the judge says when a part of an honest tale is not so.

mod tale;

use job_engine::lifecycle::RunEnd;
use job_engine::store::{CRASHED_TOO_OFTEN, LOST_AT_LAST_ATTEMPT};
use uuid::Uuid;

use super::{End, Evidence, Process, Spec, Terms, audit};
use crate::processes::books::{Entry, Line, Meant, Micros, State};
use crate::processes::workload::{AS_ORDERED, Kind, Order};
use tale::*;

/// The rules that the judge finds broken, each once.
fn broken(tale: &Tale) -> Vec<&'static str> {
    let (violations, _) = audit(&tale.0, TERMS);
    let mut rules: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// What the judge objects to when the tale is told like this.
#[track_caller]
fn check(expected: &[&str], lie: impl FnOnce(&mut Tale)) {
    let mut tale = honest();
    lie(&mut tale);
    assert_eq!(broken(&tale), expected);
}

#[test]
fn the_judge_does_not_object_to_an_honest_tale() {
    check(&[], |_| {});
    let (_, counts) = audit(&honest().0, TERMS);
    let expected = [
        ("overlaps", 1),
        ("losers at work", 1),
        ("losers told", 1),
        ("losers dropped", 1),
        ("runs killed at work", 3),
        ("abandoned", 1),
        ("interrupted", 1),
    ];
    for (what, n) in expected {
        assert_eq!(counts.of(what), n, "{what}: {counts}");
    }
}

#[test]
fn a_job_that_is_lost_or_should_not_be_there_is_found() {
    check(&["effect.children", "spawn.lost"], |tale| {
        tale.0
            .specs
            .retain(|spec| ![CHILD, UNIQUE].contains(&spec.id));
        tale.0
            .ends
            .retain(|end| ![CHILD, UNIQUE].contains(&end.job));
        let runs = [CHILD, UNIQUE].map(|job| run(job, 1));
        tale.forget(|line| matches!(line, Line::Started { run, .. } if runs.contains(run)));
    });
    check(&["spawn.lost", "spawn.torn"], |tale| {
        let in_op = true;
        let due_at = None;
        tale.line(
            0,
            Line::Asked {
                job: CHILD,
                in_op,
                due_at,
            },
        );
        tale.line(
            0,
            Line::Asked {
                job: NEVER,
                in_op,
                due_at,
            },
        );
        tale.line(0, Line::Confirmed { job: NEVER });
    });
    check(&["spawn.rolled_back"], |tale| {
        tale.line(0, Line::RolledBack { job: IN_TX });
    });
    check(&["spawn.torn"], |tale| {
        tale.forget(|line| *line == Line::Stands { job: IN_TX });
    });
    check(&["spawn.unasked"], |tale| {
        tale.forget(|line| matches!(line, Line::Asked { job, .. } if *job == IN_TX));
        tale.forget(|line| *line == Line::Stands { job: IN_TX });
        tale.forget(|line| *line == Line::Confirmed { job: IN_TX });
    });
    check(&["spawn.unasked"], |tale| {
        let job = Uuid::from_u128(99);
        tale.job(job, "foreign", Order::default());
    });
    check(&["spawn.unique"], |tale| {
        let second = Uuid::from_u128(99);
        tale.job(second, "unique_3", Order::default());
        tale.completes(second, STEADY, SECOND);
        tale.enters(second, 1, 0);
    });
    check(&["history.orphan"], |tale| {
        tale.completes(Uuid::from_u128(99), STEADY, SECOND);
    });
}

#[test]
fn a_job_that_does_not_end_as_it_should_is_found() {
    check(&["end.missing", "history.order"], |tale| {
        tale.spec(OUTSIDE).live = true;
    });
    check(
        &[
            "end.missing",
            "history.order",
            "ledger.count",
            "ledger.foreign",
        ],
        |tale| {
            tale.0.ends.retain(|end| (end.job, end.fence) != (IN_TX, 2));
            tale.forget(
                |line| matches!(line, Line::Started { run: of, .. } if *of == run(IN_TX, 2)),
            );
        },
    );
    check(&["cap.attempts", "end.wrong"], |tale| {
        tale.0.ledger.retain(|entry| entry.job != IN_TX);
        let how = Meant::Fail;
        tale.line(
            4_091 * MS,
            Line::Ending {
                run: run(IN_TX, 2),
                how,
            },
        );
        let end = tale.end(IN_TX, 2);
        (end.end, end.error) = (RunEnd::Errored, Some(AS_ORDERED.to_owned()));
    });
}

#[test]
fn work_that_is_done_twice_or_never_is_found() {
    check(&["ledger.count"], |tale| tale.enters(IN_TX, 2, 0));
    check(&["ledger.count", "ledger.foreign"], |tale| {
        tale.enters(IN_TX, 1, 0)
    });
    check(&["ledger.count"], |tale| {
        tale.0.ledger.retain(|entry| entry.job != IN_TX);
    });
    check(&["ledger.foreign"], |tale| {
        tale.0.ledger.retain(|entry| entry.job != IN_TX);
        tale.enters(IN_TX, 1, 0);
    });
    check(&["ledger.count"], |tale| tale.enters(TURNING, 1, 1));
    check(&["ledger.count", "ledger.foreign"], |tale| {
        tale.enters(ERRORING, 4, 0);
    });
    check(&["ledger.outside"], |tale| {
        let last = run(OUTSIDE, 3);
        tale.0.ledger.retain(|entry| entry.run != last);
    });
    check(&["effect.children"], |tale| {
        let second = Uuid::from_u128(99);
        let of_parent = tale.spec(CHILD).order.clone();
        tale.job(second, "in_tx", of_parent);
        tale.completes(second, STEADY, SECOND);
        tale.enters(second, 1, 0);
    });
}

#[test]
fn an_overlap_that_no_lost_lease_explains_is_found() {
    check(&["overlap.unexplained"], |tale| {
        tale.process(ASKED).ended_at = (5 * SECOND, 5 * SECOND);
        tale.dropped(OUTSIDE, 2, 4_050 * MS);
    });
    // It overlaps with nobody: its process was dead by then.
    check(&[], |tale| tale.undropped(OUTSIDE, 2));
}

#[test]
fn a_shutdown_that_forgets_a_run_is_found() {
    check(&["lost.needless"], |tale| {
        tale.end(OUTSIDE, 2).end = RunEnd::Lost;
        tale.end(OUTSIDE, 2).ended_at = 6_500 * MS;
        tale.end(OUTSIDE, 2).next_due_at = Some(6_500 * MS);
        let third = tale.end(OUTSIDE, 3);
        (third.claimed_at, third.ended_at) = (6_500 * MS, 7 * SECOND);
        third.attempt += 1;
        let of = run(OUTSIDE, 3);
        for (at, line) in &mut tale.0.diary {
            match line {
                Line::Started { run, attempt, .. } if *run == of => {
                    (*at, *attempt) = (6_600 * MS, *attempt + 1);
                }
                Line::Ending { run, .. } if *run == of => *at = 6_900 * MS,
                _ => {}
            }
        }
    });
}

#[test]
fn a_runner_that_is_told_of_a_loss_without_need_is_found() {
    let told = |tale: &mut Tale, job| tale.line(1_050 * MS, Line::Told { run: run(job, 1) });
    check(&["told.needless"], |tale| told(tale, UNIQUE));
    // One that blocks its thread may have kept that from the driver.
    check(&[], |tale| {
        told(tale, UNIQUE);
        tale.spec(CHILD).job_type = "blocking".to_owned();
    });
}

#[test]
fn a_loser_that_is_not_told_or_not_ended_is_found() {
    let told = |tale: &mut Tale, at| {
        tale.forget(|line| matches!(line, Line::Told { .. }));
        tale.line(at, Line::Told { run: run(IN_TX, 1) });
    };
    let dropped = |tale: &mut Tale, at| tale.dropped(IN_TX, 1, at);
    // Its process went on at the fifth second.
    check(&[], |tale| {
        told(tale, 9_900 * MS);
        dropped(tale, 10_900 * MS);
    });
    check(&["lost.untold"], |tale| {
        told(tale, 10_100 * MS);
        dropped(tale, 10_900 * MS);
    });
    check(&["lost.unended"], |tale| dropped(tale, 11_100 * MS));
    // Dropped in time, but without a word.
    check(&["lost.untold"], |tale| {
        tale.forget(|line| matches!(line, Line::Told { .. }));
    });
    check(&[], |tale| {
        tale.forget(|line| matches!(line, Line::Told { .. }));
        // It had just come back.
        dropped(tale, 5_200 * MS);
    });
    // It stood still once more.
    check(&[], |tale| {
        dropped(tale, 12_900 * MS);
        tale.line(
            7 * SECOND,
            Line::Gap {
                worker: STOPPED,
                since: 6_500 * MS,
                until: 7 * SECOND,
            },
        );
    });
}

#[test]
fn a_lease_that_is_lost_without_need_is_found() {
    check(&["lost.needless"], |tale| {
        tale.process(STOPPED).stops.clear()
    });
    // It starved instead.
    check(&[], |tale| {
        tale.process(STOPPED).stops.clear();
        tale.line(
            5 * SECOND,
            Line::Gap {
                worker: STOPPED,
                since: SECOND,
                until: 5 * SECOND,
            },
        );
    });
    // The database did not answer, which it said.
    for (at, expected) in [(3 * SECOND, &[][..]), (9 * SECOND, &["lost.needless"])] {
        check(expected, |tale| {
            tale.process(STOPPED).stops.clear();
            let worker = STOPPED;
            tale.line(at, Line::NotRenewed { worker, at });
        });
    }
    // It starved, and did not live to say so.
    check(&["lost.needless"], |tale| {
        tale.process(STOPPED).stops.clear();
        tale.0.pulses.insert(STOPPED, 99_900 * MS);
    });
    check(&[], |tale| {
        tale.process(STOPPED).stops.clear();
        tale.0.pulses.insert(STOPPED, 3 * SECOND);
        tale.process(STOPPED).ended_at = (6_500 * MS, 6_500 * MS);
    });
    check(&["lost.early"], |tale| {
        tale.end(OUTSIDE, 1).claimed_at = 1_100 * MS;
        tale.end(OUTSIDE, 1).ended_at = 3 * SECOND;
        let started = run(OUTSIDE, 1);
        for (at, line) in &mut tale.0.diary {
            if matches!(line, Line::Started { run, .. } if *run == started) {
                *at = 1_110 * MS;
            }
        }
    });
}

/// What the judge objects to where one process at a time uses the database.
#[track_caller]
fn check_one_process(expected: &[&str], lie: impl FnOnce(&mut Tale)) {
    let mut tale = one_after_the_other();
    lie(&mut tale);
    let terms = Terms {
        one_process: true,
        ..TERMS
    };
    let (violations, _) = audit(&tale.0, terms);
    let rules: Vec<_> = violations.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, expected);
}

#[test]
fn what_a_killed_process_left_and_the_next_does_not_take_back_as_it_should_is_found() {
    check_one_process(&[], |_| {});
    check_one_process(&["left.late"], |tale| {
        let end = tale.end(IN_TX, 1);
        (end.ended_at, end.next_due_at) = (2_010 * MS, Some(2_010 * MS));
        tale.end(IN_TX, 2).claimed_at = 2_010 * MS;
    });
    check_one_process(&["history.attempt", "lost.early", "left.unlike"], |tale| {
        tale.end(IN_TX, 1).end = RunEnd::Lost;
    });
    // By nothing but a shutdown while it lived.
    check_one_process(&["history.unmeant"], |tale| {
        let end = tale.end(IN_TX, 1);
        (end.ended_at, end.next_due_at) = (900 * MS, Some(900 * MS));
    });
    // Elsewhere it waits for its lease.
    let (violations, _) = audit(&one_after_the_other().0, TERMS);
    assert_eq!(violations[0].rule, "history.unmeant");
}

#[test]
fn a_lost_job_that_is_taken_back_too_late_is_found() {
    // Its process died at the first second, so its lease ran out at the third.
    let taken_back = |tale: &mut Tale, at| {
        let end = tale.end(FRAGILE, 1);
        (end.ended_at, end.next_due_at) = (at, Some(at));
        tale.end(FRAGILE, 2).claimed_at = at;
        tale.process(KILLED_LATER).ended_at = (9 * SECOND, 9 * SECOND);
        tale.last(FRAGILE).ended_at = 11 * SECOND;
        tale.forget(|line| matches!(line, Line::Started { run: of, .. } if *of == run(FRAGILE, 2)));
    };
    check(&[], |tale| taken_back(tale, 5 * SECOND));
    check(&["lost.late"], |tale| taken_back(tale, 5_100 * MS));
    // There was nobody to take it back, or nobody yet.
    check(&[], |tale| {
        taken_back(tale, 5_100 * MS);
        tale.forget(|line| matches!(line, Line::Polls { .. }));
        let worker = STEADY;
        tale.line(3_100 * MS, Line::Polls { worker });
    });
    check(&[], |tale| {
        taken_back(tale, 5_100 * MS);
        for (worker, at) in [(STEADY, 3_100), (KILLED_LATER, 4_900)] {
            let (since, until) = (at * MS - 1, at * MS);
            let gap = Line::Gap {
                worker,
                since,
                until,
            };
            tale.line(until, gap);
        }
    });
}

#[test]
fn a_history_with_a_claim_too_few_or_too_many_is_found() {
    check(&["history.fences"], |tale| {
        tale.end(ERRORING, 2).fence = 7;
    });
    check(&["history.attempt"], |tale| {
        tale.forget(|line| matches!(line, Line::Started { run: of, .. } if *of == run(FRAGILE, 2)));
        tale.end(FRAGILE, 2).attempt = 1;
    });
    // The claim came after the run.
    check(
        &["history.unclaimed", "history.unmeant", "ledger.foreign"],
        |tale| tale.end(PARENT, 1).claimed_at = 1_050 * MS,
    );
    check(&["history.unclaimed"], |tale| {
        let second = Line::Started {
            run: Uuid::from_u128(99),
            job: UNIQUE,
            attempt: 2,
            worker: STEADY,
            place: 9,
            found: None,
        };
        tale.line(5 * SECOND, second);
    });
    check(&["history.worker"], |tale| {
        let nobody = Uuid::from_u128(99);
        tale.end(CHILD, 1).worker = nobody;
        for (_, line) in &mut tale.0.diary {
            if let Line::Started { job, worker, .. } = line
                && *job == CHILD
            {
                *worker = nobody;
            }
        }
    });
    check(&["history.worker", "lost.late"], |tale| {
        tale.process(KILLED_LATER).ended_at = (1_900 * MS, 1_900 * MS);
    });
    check(&["history.worker"], |tale| {
        tale.process(KILLED_LATER).started_at = 3_100 * MS;
    });
    check(&["history.time"], |tale| {
        tale.end(ERRORING, 4).ended_at = 3_999 * MS;
    });
    // A claim of a job that was over.
    check(
        &["history.early", "history.order", "history.unmeant"],
        |tale| {
            let mut end = tale.end(UNIQUE, 1).clone();
            end.fence = 2;
            tale.0.ends.push(end);
        },
    );
}

#[test]
fn an_end_that_nobody_meant_is_found() {
    let without_ending = |job, fence| {
        move |tale: &mut Tale| {
            let of = run(job, fence);
            tale.forget(|line| matches!(line, Line::Ending { run, .. } if *run == of));
        }
    };
    check(&["history.unmeant"], without_ending(IN_TX, 2));
    check(
        &["history.unmeant", "overlap.unexplained"],
        without_ending(TURNING, 1),
    );
    check(&["history.unmeant"], without_ending(ERRORING, 4));
    check(&["history.unmeant"], |tale| {
        tale.end(ERRORING, 1).error = Some("the database is away".to_owned());
    });
    check(&["history.unmeant"], |tale| {
        tale.process(ASKED).asked_at = Some(3_200 * MS);
    });
}

#[test]
fn a_job_that_is_due_at_another_time_is_found() {
    check(&["history.due"], |tale| {
        tale.end(TURNING, 1).next_due_at = Some(1_100 * MS + 301);
    });
    check(&["history.due"], |tale| {
        tale.end(ERRORING, 1).next_due_at = Some(1_100 * MS + 61 * MS);
    });
    check(&["history.due"], |tale| {
        tale.end(OUTSIDE, 1).next_due_at = Some(3 * SECOND - 1);
    });
    check(&["history.due"], |tale| {
        tale.end(UNIQUE, 1).next_due_at = Some(3 * SECOND);
    });
    check(&["history.early"], |tale| {
        tale.spec(UNIQUE).spawned_at = SECOND + 1;
    });
    check(&["history.early"], |tale| {
        for (_, line) in &mut tale.0.diary {
            if let Line::Asked { job, due_at, .. } = line
                && *job == PARENT
            {
                *due_at = Some(SECOND + 1);
            }
        }
    });
}

#[test]
fn a_job_that_is_tried_too_often_or_not_often_enough_is_found() {
    check(&["cap.crashes"], |tale| {
        tale.last(FRAGILE).error = Some(LOST_AT_LAST_ATTEMPT.to_owned());
    });
    check(&["cap.crashes", "end.missing"], |tale| {
        tale.spec(FRAGILE).live = true;
        let last = tale.last(FRAGILE);
        (last.end, last.error) = (RunEnd::Lost, None);
        last.next_due_at = Some(6 * SECOND);
    });
    check(&["cap.crashes"], |tale| {
        tale.0
            .ends
            .retain(|end| (end.job, end.fence) != (FRAGILE, 2));
        tale.forget(|line| matches!(line, Line::Started { run: of, .. } if *of == run(FRAGILE, 2)));
        let last = tale.last(FRAGILE);
        (last.end, last.next_due_at) = (RunEnd::Abandoned, None);
        last.error = Some(CRASHED_TOO_OFTEN.to_owned());
    });
    check(&["cap.attempts"], |tale| {
        tale.0
            .ends
            .retain(|end| (end.job, end.fence) != (ERRORING, 4));
        tale.forget(
            |line| matches!(line, Line::Started { run: of, .. } if *of == run(ERRORING, 4)),
        );
        let last = tale.last(ERRORING);
        (last.end, last.next_due_at) = (RunEnd::Errored, None);
    });
}

#[test]
fn a_state_that_was_lost_or_was_not_to_be_kept_is_found() {
    check(&["state.torn"], |tale| tale.found(TURNING, 2, None));
    check(&["state.torn"], |tale| {
        let (turn, by) = (1, run(TURNING, 9));
        tale.found(TURNING, 2, Some(State { turn, by }));
    });
    check(&["state.lost"], |tale| tale.found(KEEPING, 2, None));
    check(&["state.lost"], |tale| {
        let (turn, by) = (2, run(KEEPING, 1));
        tale.found(KEEPING, 2, Some(State { turn, by }));
    });
    // A run that rescheduled itself had kept its state before.
    check(&["state.lost"], |tale| {
        tale.forget(|line| matches!(line, Line::Kept { .. }));
    });
}
