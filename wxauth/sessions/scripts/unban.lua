-- Forgets the reasons of a ban, so that a login is allowed without a question. Returns 1.
keep(live_sessions(), reasons('b'))
return 1
