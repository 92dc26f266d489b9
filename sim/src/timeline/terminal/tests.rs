use job_engine::WorkerId;
use uuid::Uuid;

use super::*;
use crate::event::Event;
use crate::scenario::Fault;
use crate::timeline::synthetic::{Synthetic, run, who};

fn stalled() -> Synthetic {
    let pause = Fault::Pause {
        worker: 1,
        at_ms: 400,
        for_ms: 900,
    };
    let mut s = Synthetic::new(2, vec![pause]);
    for who in [who(1), who(2)] {
        let id = WorkerId(Uuid::nil());
        s.push(Event::Up { who, id });
    }
    s.at(50_000).claim(who(1), &[run(7, 1)]);
    s.at(60_000).claim(who(2), &[]);
    s.at(300_000).heartbeat(who(2), &[], true);
    s.at(400_000).push(Event::Fault { place: 0 });
    s.push(Event::Paused { who: who(1) });
    s.at(1_100_000).reclaim(who(2), &[run(7, 1)]);
    s.at(1_300_000).push(Event::Resumed { who: who(1) });
    s.push(Event::Crashed { who: who(1) });
    s.report.violation = Some(Violation {
        check: "leases/kept".to_owned(),
        text: "job 7 was taken back from w1.1 before its lease of 1000 ms had ended, \
               which is too soon"
            .to_owned(),
        job: Some(7),
        worker: Some(1),
    });
    s
}

fn check(show: Show, expected: &str) {
    let s = stalled();
    let options = TerminalOptions {
        width: 80,
        show,
        ..TerminalOptions::default()
    };
    let got = terminal(&s.scenario, &s.report, options);
    let (_, got) = got.split_once("\n\n").expect("the legend ends");
    assert_eq!(got, expected, "\n{got}");
}

#[test]
fn quiet_events_are_counted_and_the_chain_is_numbered() {
    check(
        Show::Loud,
        "\
\x20    time       store w1  w2
────────────────────────────────────────────────────────────────────────────────
     00:00.000    │   ●        w1.1 starts
     00:00.000    │   ┃   ●    w2.1 starts
  1▸ 00:00.050    │   ←   ┃    w1.1 sends claim 1 4xalpha
  2▸ 00:00.050    ◆   ┃   ┃    store carries out claim 1 4xalpha of w1.1:
                  │   ┃   ┃      claimed 7#1
  3▸ 00:00.050    │   →   ┃    w1.1 learns: claimed 7#1
  4▸ 00:00.050    │   ▶1  ┃    w1.1 starts run 7#1 of alpha at attempt 1
                  │   ┃1  ┃    … 6 quiet events
  5▸ 00:00.400    ▼   ┃1  ┃    fault: pause of w1
  6▸ 00:00.400    │   ‖1  ┃    w1.1 stands still
  7▸ 00:01.100    │   ╏1  ←    w2.1 sends reclaim
  8▸ 00:01.100    ◆   ╏1  ┃    store carries out reclaim of w2.1: took back
                  │   ╏1  ┃      7#1
     00:01.100    │   ╏1  →    w2.1 learns: took back 7#1
  9▸ 00:01.300    │   ▷1  ┃    w1.1 goes on
 10▸ 00:01.300    │   ✗   ┃    w1.1 crashes

━━ ✗ leases/kept ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
   job 7 was taken back from w1.1 before its lease of 1000 ms had ended, which
   is too soon
   job 7, w1, at 00:01.300

What led to it
   1 00:00.050  w1.1   sends claim 1 4xalpha
   2 00:00.050  store  carries out claim 1 4xalpha of w1.1: claimed 7#1
                         (after 1)
   3 00:00.050  w1.1   learns: claimed 7#1 (after 2)
   4 00:00.050  w1.1   starts run 7#1 of alpha at attempt 1 (after 3)
   5 00:00.400         fault: pause of w1
   6 00:00.400  w1.1   stands still (after 5)
   7 00:01.100  w2.1   sends reclaim
   8 00:01.100  store  carries out reclaim of w2.1: took back 7#1 (after 7)
   9 00:01.300  w1.1   goes on
  10 00:01.300  w1.1   crashes (after 5)
",
    );
}

#[test]
fn a_chain_stands_alone() {
    check(
        Show::Chain { context: 0 },
        "\
\x20    time       store w1  w2
────────────────────────────────────────────────────────────────────────────────
     00:00.000    │   ●        w1.1 starts
     00:00.000    │   ┃   ●    w2.1 starts
  1▸ 00:00.050    │   ←   ┃    w1.1 sends claim 1 4xalpha
  2▸ 00:00.050    ◆   ┃   ┃    store carries out claim 1 4xalpha of w1.1:
                  │   ┃   ┃      claimed 7#1
  3▸ 00:00.050    │   →   ┃    w1.1 learns: claimed 7#1
  4▸ 00:00.050    │   ▶1  ┃    w1.1 starts run 7#1 of alpha at attempt 1
                  │   ┃1  ┃    … 6 quiet events
  5▸ 00:00.400    ▼   ┃1  ┃    fault: pause of w1
  6▸ 00:00.400    │   ‖1  ┃    w1.1 stands still
  7▸ 00:01.100    │   ╏1  ←    w2.1 sends reclaim
  8▸ 00:01.100    ◆   ╏1  ┃    store carries out reclaim of w2.1: took back
                  │   ╏1  ┃      7#1
                  │   ╏1  ┃    … 1 event
  9▸ 00:01.300    │   ▷1  ┃    w1.1 goes on
 10▸ 00:01.300    │   ✗   ┃    w1.1 crashes

━━ ✗ leases/kept ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
   job 7 was taken back from w1.1 before its lease of 1000 ms had ended, which
   is too soon
   job 7, w1, at 00:01.300

What led to it
   1 00:00.050  w1.1   sends claim 1 4xalpha
   2 00:00.050  store  carries out claim 1 4xalpha of w1.1: claimed 7#1
                         (after 1)
   3 00:00.050  w1.1   learns: claimed 7#1 (after 2)
   4 00:00.050  w1.1   starts run 7#1 of alpha at attempt 1 (after 3)
   5 00:00.400         fault: pause of w1
   6 00:00.400  w1.1   stands still (after 5)
   7 00:01.100  w2.1   sends reclaim
   8 00:01.100  store  carries out reclaim of w2.1: took back 7#1 (after 7)
   9 00:01.300  w1.1   goes on
  10 00:01.300  w1.1   crashes (after 5)
",
    );
}

#[test]
fn colours_change_nothing_but_colours() {
    let s = stalled();
    let print = |colour| {
        let options = TerminalOptions {
            colour,
            ..TerminalOptions::default()
        };
        terminal(&s.scenario, &s.report, options)
    };
    let mut coloured = print(true);
    assert!(coloured.contains("\x1b[1;31m✗\x1b[0m"));
    for code in ["0", "1", "2", "32", "33", "1;31"] {
        coloured = coloured.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(coloured, print(false));
}

#[test]
fn a_report_without_a_trace_shows_the_result() {
    let mut s = Synthetic::new(1, vec![]);
    let print = |s: &Synthetic| terminal(&s.scenario, &s.report, TerminalOptions::default());
    assert_eq!(
        print(&s),
        "\nEvery property holds over 0 events in 00:00.000.\n"
    );
    s.report.violation = stalled().report.violation;
    assert!(print(&s).contains("which is too soon"));
}

#[test]
fn long_words_are_broken_and_others_are_not() {
    assert_eq!(wrap("ab cd efghijk l", 5), ["ab cd", "efghi", "jk l"]);
    assert_eq!(wrap("über lang", 4), ["über", "lang"]);
}
