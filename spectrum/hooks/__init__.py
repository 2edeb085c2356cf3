"""The one hook, and all that is done to diffusers, accelerate and torch from outside. Knows no configs, no model names.

A tensor's way at one step: `hook.CacheHook` finds the trajectory, the CFG branch and the step; `step.CurrentStep` says
whether the blocks run; a site (`exit_site`, `output_site`, `module_site`) runs them, or puts the forecast in their
place; `trajectory.Branch` stores what the site gives. docs/how-a-step-is-skipped.md follows it line by line.
"""
