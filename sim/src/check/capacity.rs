//! A worker runs no more jobs than it may, and asks for no more than it has
//! room for.

use job_engine::Command;

use super::books::Books;
use super::{Verdict, Violation};
use crate::event::Event;
use crate::scenario::job_key;

pub(super) fn event(books: &Books, event: &Event<'_>) -> Verdict {
    match event {
        Event::Started { who, job } => {
            let Some(worker) = books.worker(*who) else {
                return Ok(());
            };
            let (running, jobs_max) = (worker.executing.len(), worker.knobs.jobs_max.max(1));
            if running >= jobs_max as usize {
                return Err(Violation::new(
                    "capacity.exceeded",
                    format!("{who} starts a job while {running} run, and may run {jobs_max}"),
                )
                .of_job(job_key(job.run.job))
                .of(*who));
            }
        }
        Event::Sent {
            call,
            command: command @ Command::Claim(claim),
        } if call.is_of_engine() && !claim.repeat => {
            let Some(worker) = books.worker(call.who) else {
                return Ok(());
            };
            let wanted: u32 = Books::quotas(command).map(|(_, jobs_max)| jobs_max).sum();
            let running = worker.executing.len() as u32;
            let room = worker.knobs.jobs_max.max(1).saturating_sub(running);
            if wanted > room {
                return Err(Violation::new(
                    "capacity.asked",
                    format!("{} asks for {wanted} jobs with room for {room}", call.who),
                )
                .of(call.who));
            }
        }
        _ => {}
    }
    Ok(())
}
