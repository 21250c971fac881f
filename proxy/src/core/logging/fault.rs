//! A fault that lasts is logged once.

/// The state of something that may fail again and again.
#[derive(Debug, Default)]
pub struct Fault {
    /// The last failure, unless it has worked since.
    why: Option<String>,
}

impl Fault {
    /// Notes a failure for this reason. Returns whether to log it: each reason is logged once until there is another
    /// one or it has worked.
    #[must_use]
    pub fn fails(&mut self, why: &str) -> bool {
        let is_news = self.why.as_deref() != Some(why);
        self.why = Some(why.to_owned());
        is_news
    }

    /// Notes that it works. Returns whether it failed before.
    pub fn works(&mut self) -> bool {
        self.why.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_until_there_is_another_one() {
        let mut fault = Fault::default();
        let told = ["full", "full", "gone", "gone", "full"].map(|why| fault.fails(why));
        assert_eq!(told, [true, false, true, false, true]);
    }

    #[test]
    fn it_works_again_once_after_which_the_same_reason_is_told() {
        let mut fault = Fault::default();
        assert!(!fault.works(), "nothing failed");
        assert!(fault.fails("full"));
        assert_eq!((fault.works(), fault.works()), (true, false));
        assert!(fault.fails("full"));
    }
}
