//! How many of the machine's cores this process may use.

/// Physical cores this process may use: those of its affinity mask, at most its cgroup's quota.
///
/// Two hardware threads of one core gain nothing for products that fill its vector units.
pub fn usable_cores() -> usize {
    let logical = num_cpus::get().max(1);
    let physical = physical_cores_allowed().unwrap_or_else(num_cpus::get_physical);
    physical.clamp(1, logical)
}

/// Distinct cores behind the hardware threads that the affinity mask allows (Linux).
fn physical_cores_allowed() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status_field(&status, "Cpus_allowed_list:")?;
    let mut cores: Vec<String> = Vec::new();
    for cpu in cpu_list(allowed)? {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = std::fs::read_to_string(file).ok()?;
        if !cores.contains(&siblings) {
            cores.push(siblings);
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Linux's lists of CPUs: `0-3,8,10-11`.
fn cpu_list(text: &str) -> Option<Vec<usize>> {
    const MOST: usize = 1 << 16;
    let mut cpus = Vec::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_as_linux_writes_them() {
        assert_eq!(cpu_list("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        assert_eq!(cpu_list(""), None);
        assert_eq!(cpu_list("0-99999999999"), None);
    }

    #[test]
    fn fields_of_proc_status_are_found_by_name() {
        let status = "Name:\tgemma3n\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n";
        assert_eq!(status_field(status, "Cpus_allowed_list:"), Some("0-1"));
        assert_eq!(status_field(status, "Mems_allowed_list:"), None);
    }

    #[test]
    fn at_least_one_core_and_no_more_than_there_are() {
        let cores = usable_cores();
        assert!(cores >= 1 && cores <= num_cpus::get());
    }
}
