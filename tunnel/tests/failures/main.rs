//! What can fail, and the test that shows the consequences. Tests are named as `file::name`, those of
//! `tunnel/core/tests` and of `tunnel/tests` by their path there, and those of programs, in `tests/tests/sockets`, from
//! `tunnels` on, or in `tests/tests/node` with the word "node". "No test" marks what none of them shows.
//!
//! | what fails | what is shown | by |
//! |---|---|---|
//! | a carrier, at any byte | equal bytes, and both directions continue | core `simulation::bytes_and_ends_arrive_whatever_is_cut`, `simulation::a_carrier_may_be_cut_at_every_byte` |
//! | everything, for an hour | the same, and no stream stands still or stays | core `hour` (each seed) |
//! | a carrier, every second for a minute | 64 streams are whole in both directions | `failures::carriers::sixty_four_streams_are_whole_both_ways_over_carriers_that_are_cut_every_second_for_a_minute` |
//! | the same, on loopback | the agent dials again at once | `agents::sixteen_streams_are_whole_over_connections_that_are_cut_every_tenth_of_a_second`; core `dial::tests::a_carrier_that_is_cut_after_it_held_is_replaced_within_a_fifth_of_a_second_each_time` |
//! | one direction, and it thaws later | streams continue within `dead_after` and two seconds | `failures::carriers::a_half_open_carrier_holds_streams_up_for_no_longer_than_it_takes_to_find_it_dead` |
//! | | frames of the old carrier are not taken | core `hour`; `streams::resumption::a_carrier_that_thaws_late_adds_nothing` |
//! | an end speaks, and never says what it has received | the carrier is closed for that after `dead_after` | `streams::resumption::a_far_end_that_never_says_what_it_has_received_is_closed_for_that` |
//! | the network: slow, frozen, reset | bytes that come back are equal | `failures::loopback::streams_are_whole_over_a_network_that_delays_limits_freezes_thaws_and_resets` |
//! | an agent moves to another address, and its endpoint is not told | bytes that come back are equal | `failures::loopback::streams_are_whole_after_an_agent_has_moved_to_another_address_of_which_its_endpoint_is_not_told` |
//! | nothing, but acknowledgements take 120 ms | backpressure, a window that grows, bounded memory | `failures::carriers::a_stream_over_a_delay_of_120_ms_is_held_back_by_its_window_and_the_window_grows` |
//! | the process of an endpoint is killed | the agent's targets are freed | `agents::an_endpoint_that_restarts_frees_the_targets_of_its_old_streams` |
//! | | its visitors are reset, and its agents come back to the next one | `tunnels::losses::a_server_that_was_killed_has_its_agents_back_when_it_runs_again_and_they_give_its_old_streams_up` |
//! | | streams of other endpoints continue | `enrolment::sidecars::streams_of_a_sidecar_outlive_the_loss_of_all_pods_of_the_gateway_at_once`; node `tunnels::sidecars`, `tunnels::fleet` |
//! | | its agents come back as soon as it is named again | core `places::tests::an_endpoint_or_a_sidecar_that_is_named_again_is_dialled_at_once`; node `tunnels::fleet` |
//! | | new visitors of other endpoints are served | node `tunnels::fleet` |
//! | | the first of them are served within a second | no test |
//! | the process of an endpoint is frozen | streams continue afterwards | `failures::carriers::an_endpoint_that_is_frozen_for_less_than_the_grace_period_keeps_its_streams` |
//! | gateways roll out | no stream breaks before the drain deadline | node `tunnels::fleet` |
//! | an agent is killed and restarts | old streams are reset at once | `agents::an_agent_that_restarts_has_its_old_streams_reset_at_once` |
//! | | the port never refuses | `tunnels::another_instance_takes_over_for_one_that_was_killed_and_later_serves_without_a_join_string` |
//! | an agent is stopped | the backend of the next priority serves | `tunnels::backends::the_agent_of_the_next_priority_serves_while_the_first_one_is_stopped` |
//! | nothing listens at the target of an agent | checks lead new visitors to another agent until it is back | `tunnels::backends::a_check_through_an_agent_leads_sessions_away_while_nothing_listens_at_its_target` |
//! | | connections that fail eject the agent | `tunnels::backends::an_agent_whose_target_refuses_connections_is_ejected_after_so_many_in_a_row` |
//! | one instance of an agent is killed | new streams go to the other | `agents::instances_share_the_streams_and_take_over_for_each_other` |
//! | the operator | known agents reconnect | node `tunnels::fleet`, `tunnels::an_agent_without_a_way_in_serves_visitors_of_a_gateway_through_cuts_new_pods_and_an_absent_operator` |
//! | the API server, for twenty seconds, or for ten minutes with `PORTLANE_AWAY_SECONDS=600` | known agents reconnect, and new visitors are served | node `tunnels::away::without_an_api_server_sessions_visitors_and_agents_that_reconnect_are_served_and_an_enrolment_waits` |
//! | | an agent that enrols says why it waits, and is enrolled afterwards | the same |
//! | a clock is wrong by a day | the certificate that is not valid says so | `tunnel/src/identity/tls/tests.rs`: `an_agent_whose_clock_is_wrong_is_told_to_check_its_clock`, `a_server_whose_clock_is_behind_says_so` |
//! | | the log of the server says so once a minute | `enrolment::clocks::a_server_whose_clock_is_wrong_says_so_to_its_owner` |
//! | | live carriers stay | `enrolment::a_clock_that_jumps_by_a_day_ends_no_connection_that_is_there` |
//! | | streams without a carrier wait until it is right | `enrolment::clocks::a_stream_without_a_connection_waits_for_a_clock_to_be_set_right` |
//! | a visitor never reads | 63 others finish | `failures::loopback::a_visitor_that_never_reads_holds_up_no_other` |
//! | | at most one window of memory | `streams::bounds::one_reader_that_never_reads_holds_up_no_other` |
//! | the connection of one instance stands still | streams of another instance continue | `failures::loopback::a_connection_that_stands_still_holds_up_the_streams_of_its_own_instance_alone` |
//! | an endpoint of a thousand agents | all are back within ten seconds, 200 a second | core `herd::a_thousand_agents_are_back_within_ten_seconds_at_an_endpoint_that_takes_two_hundred_a_second` |
//! | | a connection beyond the rate is closed, the others begin one after the other | `agents::rates::a_connection_beyond_the_rate_is_closed_and_counted_and_an_agent_comes_back`, `agents::rates::the_handshakes_of_a_burst_begin_one_after_the_other` |
//! | an endpoint of a fleet of three, with a thousand agents | all connections to the others are back within ten seconds | `herd::a_thousand_agents_have_all_their_connections_back_within_ten_seconds_after_an_endpoint_is_lost` |
//! | an endpoint closes what it accepts | pauses grow to ten seconds | core `dial::tests::pauses_grow_to_ten_seconds_while_no_carrier_comes_or_holds` |
//! | a load balancer always picks one pod | carriers to all, by directed dial | `enrolment::peers::an_agent_reaches_each_endpoint_that_is_named_through_the_address_that_it_knows`; node `tunnels::fleet` |
//! | | the endpoint that answers for another one is left, and the error names both | `enrolment::an_agent_leaves_an_endpoint_that_answers_in_place_of_another_one` |
//! | a load balancer has no server behind it | the next address is used, and kept | `agents::addresses::an_address_that_accepts_and_leads_to_no_server_gives_way_to_the_next_one`, `enrolment::addresses::an_agent_enrols_and_renews_at_the_first_address_that_leads_to_the_server` |
//! | IPv6 or IPv4 leads nowhere | the other is used after 250 ms | `tunnel/src/reach.rs`: `a_family_that_leads_nowhere_costs_a_quarter_of_a_second` |
//! | a load balancer ends connections that are idle | no carrier is ever idle | `failures::idle::an_idle_carrier_outlives_a_load_balancer_that_ends_idle_connections` |
//! | `rotation` is raised | the session is closed | `agents::an_agent_that_is_revoked_loses_its_session_and_stays_away` |
//! | | the session is closed within a second in a cluster, and the agent enrols again | node `tunnels::an_agent_without_a_way_in_serves_visitors_of_a_gateway_through_cuts_new_pods_and_an_absent_operator` |
//! | `maxInstances` is exceeded | refused with the reason | core `registry::tests::an_agent_has_as_many_instances_as_it_may`; `tunnels::two_instances_share_the_sessions_and_a_third_one_is_told_that_there_are_enough` |
//! | two processes have one identity and one name | the later one stays, and the earlier one logs the reason | `agents::denials::of_two_processes_with_one_name_the_later_one_stays_and_the_earlier_one_is_told`, `tunnels::refusals::of_two_processes_with_one_certificate_and_one_name_the_earlier_one_is_told` |
//! | an end is of another version | its log says which end to upgrade | `agents::denials::an_agent_of_another_version_is_told_which_end_to_upgrade` |
//! | a target is outside either list | refused with the remedy | `agents::a_target_outside_either_list_is_refused_with_the_remedy` |
//! | a server name of an unknown endpoint | closed, counted | `enrolment::peers::a_connection_for_an_endpoint_that_is_not_in_the_table_or_was_handed_over_is_closed` |
//! | a carrier, with UDP beside bulk | the same port at the target, whole datagrams of 0 to 65,507 bytes | `failures::loopback::a_flow_beside_bulk_keeps_its_port_and_whole_datagrams_over_other_carriers` |
//! | either end resets a stream that has no carrier | a reset after the bytes | `streams::resets::a_reset_of_either_end_comes_after_the_bytes_with_and_without_a_carrier`, `streams::relays::a_reset_of_either_socket_is_a_reset_of_the_other_also_without_a_carrier` |
//! | more is asked for than there is a place for | each request is refused with the reason | core `hostile::each_request_beyond_a_bound_is_refused_with_the_reason_and_the_session_goes_on` |
//! | an agent is stopped, and its streams do not end | they are reset, and the endpoint waits for nothing | `agents::stops::streams_that_are_left_when_an_agent_stops_are_reset_at_once_and_it_is_forgotten` |
//! | an agent is stopped twice | its streams are reset at once | `agents::stops::an_agent_that_is_stopped_once_more_waits_for_no_stream`, `tunnels::losses::a_second_sigterm_ends_an_agent_and_resets_its_streams` |
//! | frames lie | the carrier ends, memory stays bounded | core `hostile`, `any_frames`; the fuzz target `tunnel_frames` |

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../streams/bytes.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod bytes;
mod carriers;
mod idle;
mod loopback;
#[path = "../streams/pair.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod pair;
mod relay;
#[path = "../agents/world.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod world;
