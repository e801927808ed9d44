//! Times as the command line and `$SYS` tell them.

/// `1 hours, 25 minutes, 24 seconds`, with days when there are any (SEED-CLI-02).
#[must_use]
pub fn uptime(uptime_s: u64) -> String {
    let (minutes, seconds) = (uptime_s / 60, uptime_s % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let (days, hours) = (hours / 24, hours % 24);
    if days > 0 {
        format!("{days} days, {hours} hours, {minutes} minutes, {seconds} seconds")
    } else if hours > 0 {
        format!("{hours} hours, {minutes} minutes, {seconds} seconds")
    } else if minutes > 0 {
        format!("{minutes} minutes, {seconds} seconds")
    } else {
        format!("{seconds} seconds")
    }
}

/// `2016-01-16 13:17:32`, in UTC.
#[must_use]
pub fn datetime(unix_s: u64) -> String {
    let (days, second_of_day) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        second_of_day / 3_600,
        second_of_day / 60 % 60,
        second_of_day % 60
    )
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01. Years are counted from March, so that the leap
/// day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_MARCH_OF_YEAR_0;
    let (cycle, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // 153 days are five months of 31, 30, 31, 30, 31 days, whichever March-based month they start with.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * cycle + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_names_what_has_passed() {
        assert_eq!(uptime(0), "0 seconds");
        assert_eq!(uptime(61), "1 minutes, 1 seconds");
        assert_eq!(uptime(5_124), "1 hours, 25 minutes, 24 seconds");
        assert_eq!(uptime(90_061), "1 days, 1 hours, 1 minutes, 1 seconds");
    }

    #[test]
    fn datetime_is_of_the_gregorian_calendar() {
        assert_eq!(datetime(0), "1970-01-01 00:00:00");
        assert_eq!(datetime(951_827_696), "2000-02-29 12:34:56");
        assert_eq!(datetime(1_452_950_252), "2016-01-16 13:17:32");
        assert_eq!(datetime(1_709_164_800), "2024-02-29 00:00:00");
        assert_eq!(datetime(1_709_251_200), "2024-03-01 00:00:00");
        assert_eq!(datetime(4_102_444_799), "2099-12-31 23:59:59");
        assert_eq!(datetime(4_107_542_400), "2100-03-01 00:00:00");
    }

    #[test]
    fn each_day_of_a_cycle_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..146_097 {
            let now = date(days);
            let next_day = now.2 == before.2 + 1 && (now.0, now.1) == (before.0, before.1);
            let next_month = now.2 == 1 && now.1 == before.1 + 1 && now.0 == before.0;
            let next_year = (now.1, now.2) == (1, 1) && now.0 == before.0 + 1;
            assert!(next_day || next_month || next_year, "{before:?} {now:?}");
            before = now;
        }
    }
}
