-- Forgets the reasons of a ban. The old tokens are then only invalid, and the client logs in again by itself. Returns 1.
keep(live_sessions(), reasons('b'))
return 1
