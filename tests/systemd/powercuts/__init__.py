"""Cuts the power of a gateway at random instants of a reboot's life.

A trial asks for a reboot, cuts the power at some instant, switches on again,
perhaps cuts once more, asks again with the same id, and waits for the outcome.
What is random comes from the seed and the trial's number, so that both
together repeat it, up to what the scheduler does.
"""
