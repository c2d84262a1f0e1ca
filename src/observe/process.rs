//! The metrics of the process that Prometheus' client libraries have in common: `process_…`. They are read when Prometheus
//! scrapes; what the system does not tell stays 0.

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::metrics::Metrics;

/// Reads the state of the process.
pub(super) fn update(metrics: &Metrics) {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    if let (Ok(seconds), Ok(nanoseconds)) = (u32::try_from(spent.tv_sec), u32::try_from(spent.tv_nsec)) {
        let total = f64::from(seconds) + f64::from(nanoseconds) / 1e9;
        metrics.process_cpu.inc_by((total - metrics.process_cpu.get()).max(0.0));
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        // One of them reads the folder.
        metrics.process_open_fds.set(signed(descriptors.count().saturating_sub(1)));
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        metrics.process_max_fds.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
    if let Some(kilobytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
        metrics.process_resident.set(signed(kilobytes.saturating_mul(1024)));
    }
}

/// The resident memory in kilobytes, from the text of `/proc/self/status`.
fn resident(status: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_of_the_process() {
        let status = "Name:\tpostern\nVmHWM:\t   20000 kB\nVmRSS:\t   10148 kB\nThreads:\t4\n";
        assert_eq!(resident(status), Some(10_148));
        assert_eq!(resident("Name:\tpostern\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_of_the_tests_has_time_memory_and_open_files() {
        let metrics = Metrics::new();
        update(&metrics);
        assert!(metrics.process_cpu.get() > 0.0 && metrics.process_resident.get() > 1 << 20);
        assert!((3..=metrics.process_max_fds.get()).contains(&metrics.process_open_fds.get()));
    }
}
