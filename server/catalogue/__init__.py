"""The catalogue of published service items: no access to personal data without one."""
