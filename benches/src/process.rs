//! What the system says of a process. Linux only.

use std::time::Duration;

use crate::Result;

/// The kernel counts in hundredths of a second wherever Rust runs on Linux with an
/// x86 or ARM processor.
const TICK: Duration = Duration::from_millis(10);

/// The time that a process has spent on a processor so far, to 10 ms.
///
/// # Errors
///
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks(&stat).ok_or("/proc/PID/stat does not read as it should")?;
    Ok(TICK * ticks)
}

/// The most memory that a process had resident so far, in bytes.
///
/// # Errors
///
/// When there is no such process.
pub fn resident_max(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(peak(&status).ok_or("/proc/PID/status does not read as it should")?)
}

/// User time and system time: the 14th and the 15th field. The second is the name of
/// the program, in parentheses; it can have spaces and parentheses in it.
fn ticks(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(14 - 3);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_shift_its_times() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 1 0 9";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn the_peak_is_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t   12 kB\nVmRSS:\t 3 kB\n";
        assert_eq!(peak(status), Some(12 * 1024));
    }
}
