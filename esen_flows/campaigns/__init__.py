"""From flows and campaigns to fireworks; the only room that knows FireWorks."""
